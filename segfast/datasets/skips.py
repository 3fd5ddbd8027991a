"""Samples that were replaced because a file cannot be used: noted where they load, counted where training runs.

A dataset notes a skip in its own process. The loader's worker processes send their notes along with the batch, and the
loader notes them again in the process that trains, where the log takes them.
"""

# SPDX-License-Identifier: Apache-2.0
import os
from collections.abc import Iterable

_NOTES: list[str] = []
os.register_at_fork(after_in_child=_NOTES.clear)  # what stands here is the parent's to tell


def note_skip(reason: object) -> None:
    """Note one sample that was replaced; `reason` is one line that names the file."""
    _NOTES.append(str(reason))


def note_skips(reasons: Iterable[str]) -> None:
    """Note several, from another process."""
    _NOTES.extend(reasons)


def take_skips() -> list[str]:
    """The notes since the last call, which forgets them; another thread may go on noting."""
    taken = _NOTES[:]
    del _NOTES[: len(taken)]
    return taken
