"""Variables in a config file's text: `{{ fileDirname }}`, `{{ $NAME:default }}`, `{{ _base_.key }}`."""

# SPDX-License-Identifier: Apache-2.0

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segfast.errors import ConfigError

# Possessive, and no braces in a default: else a text without an end would be walked again and again.
_ENVIRONMENT = re.compile(r"\{\{['\"]?\s*+\$(\w++)\s*+:\s*+([^\s{}]*?)\s*+['\"]?\}\}")
_BASE = re.compile(r"(['\"]?)\{\{\s*_base_\.([\w.]+)\s*\}\}\1")
_PLACEHOLDER = re.compile(r"\{\{_base_\.([\w.]+)\}\}")


def substitute(path: Path, text: str) -> str:
    """A file's text with the parts of its own path and the environment's variables in their places.

    `{{ fileDirname }}`, `{{ fileBasename }}`, `{{ fileBasenameNoExtension }}`, `{{ fileExtname }}`;
    `{{ $NAME:default }}`.

    Raises:
        ConfigError: a variable is not set and has no default.
    """
    own = {
        "fileDirname": str(path.parent.absolute()),
        "fileBasename": path.name,
        "fileBasenameNoExtension": path.stem,
        "fileExtname": path.suffix,
    }
    for name, value in own.items():
        text = re.sub(rf"\{{\{{\s*{name}\s*\}}\}}", value.replace("\\", "/"), text)

    def from_environment(match: re.Match) -> str:
        value = os.environ.get(match[1], match[2])
        if not value:
            hint = f"(hint: set it, or write {{{{${match[1]}:default}}}})"
            raise ConfigError("", f"{path}: the environment has no {match[1]} {hint}")
        return value

    return _ENVIRONMENT.sub(from_environment, text)


def base_expressions(text: str) -> str:
    """Python text with `{{ _base_.a.b }}` as the expression `_base_.a.b`."""
    return _BASE.sub(r"_base_.\2", text)


def base_placeholders(text: str) -> str:
    """YAML, TOML or JSON text with `{{ _base_.a.b }}` as a string that `fill` knows."""
    return _BASE.sub(r'"{{_base_.\2}}"', text)


def fill(value: Any, base: Mapping, path: Path) -> Any:
    """A tree with the placeholders replaced by what the bases hold.

    Raises:
        ConfigError: the bases have no such key.
    """
    if isinstance(value, Mapping):
        return {key: fill(entry, base, path) for key, entry in value.items()}
    if isinstance(value, list):
        return [fill(entry, base, path) for entry in value]
    match = _PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    found: Any = base
    for part in match[1].split("."):
        try:
            found = found[int(part)] if isinstance(found, (list, tuple)) else found[part]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ConfigError("", f"{path}: the bases have no {match[1]}") from None
    return found
