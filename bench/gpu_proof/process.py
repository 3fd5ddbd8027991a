"""Runs one command of a stage: a time limit, its output in a log, the end of it in the record."""

# SPDX-License-Identifier: Apache-2.0

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

TAIL_LINES = 40
TAIL_CHARACTERS = 6000


class Finished(NamedTuple):
    """How a command ended: exit status (None: stopped at its limit), all its output, seconds."""

    status: int | None
    output: str
    seconds: float


def last_line(output: str) -> str:
    """What a failed command said last: of a Python program the error."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"


def tail(output: str) -> list[str]:
    """The last lines, short enough for a record."""
    return output[-TAIL_CHARACTERS:].splitlines()[-TAIL_LINES:]


def run(
    command: Sequence[str],
    folder: Path,
    limit_s: float,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run a command with its output in one stream; at the limit it ends with everything it started.

    Args:
        command: program and arguments; a program that is not there gives status 127.
        folder: where it runs.
        limit_s: seconds; at 0 or less it is not started and counts as stopped.
        environment: added to this process's.
    """
    if limit_s <= 0:
        return Finished(None, "no time was left\n", 0.0)
    begin = time.monotonic()
    try:
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Finished(127, f"{command[0]}: {error}\n", 0.0)
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        output += f"\nstopped after {limit_s:.0f} s\n"
        return Finished(None, output, time.monotonic() - begin)
    return Finished(process.returncode, output, time.monotonic() - begin)
