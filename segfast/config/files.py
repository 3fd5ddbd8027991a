"""Config files and what they inherit from: yaml, toml and json are only read, Python is run.

What is only read cannot do harm by its size, either: files, nesting, aliases and the number of bases have limits.
"""

# SPDX-License-Identifier: Apache-2.0

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segfast.config.keys import check_keys
from segfast.config.merge import merge, without_marks
from segfast.config.parse import check_size, parse
from segfast.config.python_file import PythonFile
from segfast.config.variables import base_placeholders, fill, substitute
from segfast.errors import ConfigError

BASE = "_base_"
MAX_BYTES = 1 << 20  # of one file
MAX_FILES = 100  # that are read for one config
SUFFIXES = (".py", ".yaml", ".yml", ".toml", ".json")


def read_file(
    path: Path,
    overrides: Mapping[str, Any],
    below: tuple[Path, ...] = (),
    opened: list[Path] | None = None,
) -> tuple[dict[str, Any], set[str]]:
    """Everything at the top of a file, merged over its bases.

    Args:
        path: the file.
        overrides: values for top-level variables of Python files, set before they run.
        below: the files that inherit from this one.
        opened: every file that was read so far, on whatever way.

    Returns:
        The tree, helper variables included, and the names of the overrides that were used.

    Raises:
        ConfigError: a file is missing or malformed, has a misspelt key, or inherits from itself.
    """
    opened = [] if opened is None else opened
    opened.append(path)
    if len(opened) > MAX_FILES:
        raise ConfigError("", f"{opened[0]}: more than {MAX_FILES} files to inherit from")
    text = _text(path, below)
    inheriting = (*below, path)
    if path.suffix == ".py":
        file = PythonFile(path, text)
        base, used = _read_bases(file.bases, path, overrides, inheriting, opened)
        cfg, base, names = file.run(base, overrides)
        return merge(cfg, base), used | names
    tree = parse(path, base_placeholders(text))
    bases = tree.pop(BASE, [])
    check_keys(tree, str(path), variables=bool(bases or below))
    base, used = _read_bases(bases, path, overrides, inheriting, opened)
    tree = merge(fill(tree, base, path), base)
    check_size(tree, str(path))
    return tree, used


def _text(path: Path, below: tuple[Path, ...]) -> str:
    """A file's text with its variables filled in."""
    if path.suffix not in SUFFIXES:
        expected = "expected .py, .yaml, .yml, .toml or .json"
        raise ConfigError("", f"{path}: {expected}, got {path.suffix!r}")
    try:
        is_file = path.is_file()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError("", f"{str(path)[:200]!r} is no config file: {reason}") from None
    if not is_file:
        hint = (
            f"(named by {below[-1]})"
            if below
            else "(hint: leave it out to train the built-in demo)"
        )
        raise ConfigError("", f"no config file {path} {hint}")
    if path.resolve() in (other.resolve() for other in below):
        raise ConfigError("", f"{path} inherits from itself, by way of {below[-1]}")
    if below and path.suffix == ".py" != below[-1].suffix:
        hint = "write the inheriting config in Python, too"
        raise ConfigError(
            "",
            f"{below[-1]}: {path.name} is Python and would run, {below[-1].suffix} never runs code ({hint})",
        )
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError("", f"{path}: {size} bytes, a config has at most {MAX_BYTES}")
        return substitute(path, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("", f"{path}: {' '.join(str(error).split())}") from None


def _read_bases(
    bases: Any,
    path: Path,
    overrides: Mapping[str, Any],
    below: tuple[Path, ...],
    opened: list[Path],
) -> tuple[dict[str, Any], set[str]]:
    """The bases of a file side by side: no two may have the same key."""
    merged: dict[str, Any] = {}
    used: set[str] = set()
    names_of_bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(names_of_bases, (list, tuple)) or not all(
        isinstance(name, str) for name in names_of_bases
    ):
        raise ConfigError("", f"{path}: {BASE} is a path or a list of paths, got {bases!r}")
    for name in names_of_bases:
        base, names = read_file(_base_path(name, path), overrides, below, opened)
        for key in base:
            if key in merged:
                raise ConfigError(key, f"in two bases of {path}, {name} is the second")
        merged |= without_marks(base)
        used |= names
    return merged, used


def _base_path(name: str, path: Path) -> Path:
    """`file` relative to the file that names it; `package::file` in an installed package's configs."""
    package, separator, inside = name.partition("::")
    if not separator:
        return path.parent / name
    if "." in package or ".." in Path(inside).parts or Path(inside).is_absolute():
        raise ConfigError("", f"{path}: {name}: expected package::path, both without '..'")
    try:
        spec = importlib.util.find_spec(package)
    except (ValueError, ImportError):  # `__main__`, a null byte
        spec = None
    for root in (spec.submodule_search_locations or []) if spec else []:
        for folder in (".mim/configs", "configs"):
            if (Path(root) / folder / inside).is_file():
                return Path(root) / folder / inside
    raise ConfigError("", f"{path}: {name}: no such config in an installed package")
