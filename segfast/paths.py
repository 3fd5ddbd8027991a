"""Names of output files that come from configs, checkpoints and image names stay in the folder they are meant for."""

# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from segfast.errors import UserError


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
