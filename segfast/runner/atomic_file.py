"""Files that are there whole or not at all, whenever the process is killed and however full the disk is."""

# SPDX-License-Identifier: Apache-2.0

import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from segfast.errors import OutputError

UNFINISHED = ".unfinished-"  # in the names of files that are being written


_UMASK = os.umask(0)  # can be read by setting it only
os.umask(_UMASK)


class _File(io.FileIO):
    """Remembers why a write failed: torch.save reports that something failed, not what."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """As FileIO's."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a temporary file beside `path`, sync it to the disk, rename it, sync the folder.

    Args:
        path: what is replaced, if it exists, or created with its folders.
        write: called with a binary file.

    Raises:
        OutputError: the disk is full, the folder cannot be written to; `path` is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{UNFINISHED}")
    except OSError as error:
        raise OutputError(path, error) from error
    raw = _File(handle, "wb")
    try:
        with io.BufferedWriter(raw) as file:
            write(file)
            file.flush()
            os.fsync(handle)
        os.chmod(name, 0o666 & ~_UMASK)
        os.replace(name, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        failure = raw.failure or (error if isinstance(error, OSError) else None)
        if failure is not None and not isinstance(error, KeyboardInterrupt):
            raise OutputError(path, failure) from error
        raise


def remove_unfinished(folder: Path) -> None:
    """Delete what killed processes left of files they were writing."""
    for path in folder.glob(f".*{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the renaming last through a power cut, where the system lets folders be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
