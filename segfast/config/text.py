"""Text to values and back: overrides of the command line, dumps of a config."""

# SPDX-License-Identifier: Apache-2.0

import ast
import pprint
from collections.abc import Mapping
from typing import Any

import yaml

from segfast.errors import ConfigError

_WORDS = {
    "true": True, "false": False, "yes": True, "no": False, "on": True, "off": False, "none": None, "null": None,
}  # fmt: skip
_OPEN, _CLOSE = "([{", ")]}"


def parse_override(text: str) -> tuple[str, Any]:
    """`key.path=value` of the command line -> key and Python value.

    Numbers, booleans (yes, no, on and off, too, as in yaml), None or null, quoted strings, lists, tuples and dicts are
    read as such; words in lists need no quotes, and a list no brackets: `classes=road,car`. Anything else is the string
    itself.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(text, "expected key.path=value (hint: no spaces around '=')")
    return key, _value(value)


def _value(text: str) -> Any:
    """The Python value of a text."""
    if text.strip().lower() in _WORDS:
        return _WORDS[text.strip().lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    parts = _parts(text)
    try:
        value = ast.literal_eval(text)
        return list(value) if len(parts) > 1 and isinstance(value, tuple) else value
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        pass
    if len(parts) > 1:
        return [_value(part.strip()) for part in parts if part.strip()]
    inner = text.strip()
    if inner[:1] + inner[-1:] in ("[]", "()"):
        entries = [_value(part.strip()) for part in _parts(inner[1:-1]) if part.strip()]
        return entries if inner[0] == "[" else tuple(entries)
    return text


def _parts(text: str) -> list[str]:
    """The text cut at its commas, those in brackets and quotes left out."""
    parts, depth, quote, start = [], 0, "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _OPEN or char in _CLOSE:
            depth += 1 if char in _OPEN else -1
        elif char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def dump_config(cfg: Mapping[str, Any]) -> str:
    """YAML that `load_config` reads back to the same config; tuples become lists, classes dotted paths."""
    return yaml.safe_dump(_dumpable(cfg), sort_keys=False, allow_unicode=True)


def pretty_text(cfg: Mapping[str, Any]) -> str:
    """A config as a Python file, tuples kept; classes become dotted paths."""
    plain = _dumpable(cfg, tuples=True)
    lines = (
        f"{key} = {pprint.pformat(value, sort_dicts=False, width=100)}"
        for key, value in plain.items()
    )
    return "\n".join(lines) + "\n"


def _dumpable(value: Any, tuples: bool = False) -> Any:
    """What a file can hold: objects that were built by hand appear as their representation."""
    if isinstance(value, Mapping):
        return {
            str(key) if not isinstance(key, int) else key: _dumpable(entry, tuples)
            for key, entry in value.items()
        }
    if isinstance(value, (list, tuple)):
        entries = [_dumpable(entry, tuples) for entry in value]
        return tuple(entries) if tuples and isinstance(value, tuple) else entries
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, type) or callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
    return str(value)
