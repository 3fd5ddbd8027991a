"""Output files: names from configs, checkpoints and images stay in their folder, and a write that fails is one line."""

# SPDX-License-Identifier: Apache-2.0
import contextlib
import sys
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


def printable(text: str, encoding: str | None = None) -> str:
    """A text whose file names do no harm to a screen: control characters and what cannot be encoded as escapes.

    Args:
        text: any; line ends stay.
        encoding: that of the screen; None for standard output's.
    """
    shown = "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def one_line(text: str) -> str:
    """The same in one line, in which no tab separates anything."""
    return printable(text, "utf-8").replace("\n", "\\n")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
