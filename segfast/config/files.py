"""Config files and what they inherit from: yaml, toml and json are only read, Python is run."""

# SPDX-License-Identifier: Apache-2.0

import importlib.util
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from segfast.config.keys import check_keys
from segfast.config.merge import merge, without_marks
from segfast.config.python_file import PythonFile
from segfast.config.variables import base_placeholders, fill, substitute
from segfast.errors import ConfigError

BASE = "_base_"
SUFFIXES = (".py", ".yaml", ".yml", ".toml", ".json")


def read_file(
    path: Path, overrides: Mapping[str, Any], below: tuple[Path, ...] = ()
) -> tuple[dict[str, Any], set[str]]:
    """Everything at the top of a file, merged over its bases.

    Args:
        path: the file.
        overrides: values for top-level variables of Python files, set before they run.
        below: the files that inherit from this one.

    Returns:
        The tree, helper variables included, and the names of the overrides that were used.

    Raises:
        ConfigError: a file is missing or malformed, has a misspelt key, or inherits from itself.
    """
    text = _text(path, below)
    inheriting = (*below, path)
    if path.suffix == ".py":
        file = PythonFile(path, text)
        base, used = _read_bases(file.bases, path, overrides, inheriting)
        cfg, base, names = file.run(base, overrides)
        return merge(cfg, base), used | names
    tree = _tree(path, base_placeholders(text))
    bases = tree.pop(BASE, [])
    check_keys(tree, str(path), variables=bool(bases or below))
    base, used = _read_bases(bases, path, overrides, inheriting)
    return merge(fill(tree, base, path), base), used


def _text(path: Path, below: tuple[Path, ...]) -> str:
    """A file's text with its variables filled in."""
    if path.suffix not in SUFFIXES:
        expected = "expected .py, .yaml, .yml, .toml or .json"
        raise ConfigError("", f"{path}: {expected}, got {path.suffix!r}")
    if not path.is_file():
        hint = (
            f"(named by {below[-1]})"
            if below
            else "(hint: leave it out to train the built-in demo)"
        )
        raise ConfigError("", f"no config file {path} {hint}")
    if path.resolve() in (other.resolve() for other in below):
        raise ConfigError("", f"{path} inherits from itself, by way of {below[-1]}")
    return substitute(path, path.read_text(encoding="utf-8"))


def _read_bases(
    bases: Any, path: Path, overrides: Mapping[str, Any], below: tuple[Path, ...]
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
        base, names = read_file(_base_path(name, path), overrides, below)
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
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        for folder in (".mim/configs", "configs"):
            if (Path(root) / folder / inside).is_file():
                return Path(root) / folder / inside
    raise ConfigError("", f"{path}: {name}: no such config in an installed package")


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-3 as a number: YAML 1.1 wants 1.0e-3."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _tree(path: Path, text: str) -> dict[str, Any]:
    """What a yaml, toml or json file holds."""
    try:
        if path.suffix == ".toml":
            tree = tomllib.loads(text)
        elif path.suffix == ".json":
            tree = json.loads(text)
        else:
            tree = yaml.load(text, _Loader)  # safe: a SafeLoader
    except (yaml.YAMLError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ConfigError("", f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        kind = type(tree).__name__
        raise ConfigError("", f"{path}: expected keys and values at the top, got {kind}")
    return tree
