"""Output files: names from configs, checkpoints and images stay in their folder, and a write that fails is one line."""

# SPDX-License-Identifier: Apache-2.0
import contextlib
from collections.abc import Iterator
from pathlib import Path

from segfast.errors import OutputError, UserError


def inside(folder: str | Path, name: str) -> Path:
    """The path of `name` in `folder`; sub-folders are fine, anything outside is not.

    Raises:
        UserError: the name is empty or absolute, contains "..", or a symbolic link leads out of the folder.
    """
    parts = Path(name).parts
    if not parts or "\0" in name or Path(name).is_absolute() or ".." in parts:
        raise UserError(f"{name!r} names no file in {folder} (hint: no '..', no absolute path)")
    path = Path(folder) / name
    if not path.resolve().is_relative_to(Path(folder).resolve()):
        raise UserError(f"{path}: a symbolic link leads out of {folder} (hint: remove the link)")
    return path


def is_plain_name(name: object) -> bool:
    """Whether that is the name of one file: no folder, no "..", nothing hidden in it."""
    return (
        isinstance(name, str)
        and "\0" not in name
        and "\\" not in name
        and name not in ("", ".", "..")
        and Path(name).name == name
    )


@contextlib.contextmanager
def being_written(path: Path) -> Iterator[Path]:
    """Around the writing of a file that may fail as any may; its folder is created.

    Raises:
        OutputError: the disk is full, the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except OSError as error:
        raise OutputError(path, error) from error
