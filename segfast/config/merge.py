"""Merging of nested dicts: a file over its bases, an override over a config."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

from segfast.errors import ConfigError

DELETE = "_delete_"


def plain_copy(value: Any) -> Any:
    """A copy made of plain dicts and lists; objects that are already built are the same ones."""
    if isinstance(value, Mapping):
        return {key: plain_copy(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain_copy(entry) for entry in value]
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(plain_copy(entry) for entry in value)
    return value


def merge(child: Mapping, base: Mapping, path: str = "") -> dict:
    """`child` over `base`: dicts merge key by key, everything else replaces.

    A dict of the child with `_delete_=True` replaces the base's whole.

    Args:
        child: wins.
        base: left as it is.
        path: dotted path of both, for messages.

    Raises:
        ConfigError: a dict of the child would merge into something else.
    """
    merged = dict(base)
    for key, value in child.items():
        here = f"{path}.{key}" if path else str(key)
        if not isinstance(value, Mapping):
            merged[key] = value
        elif key in base and not value.get(DELETE):
            if not isinstance(base[key], Mapping):
                kind = type(base[key]).__name__
                raise ConfigError(
                    here, f"a dict cannot inherit from the base's {kind} (hint: {DELETE}=True)"
                )
            merged[key] = merge(value, base[key], here)
        else:
            merged[key] = without_marks(value)
    return merged


def without_marks(value: Any) -> Any:
    """A copy without any `_delete_`: there is nothing left to delete."""
    if isinstance(value, Mapping):
        return {key: without_marks(entry) for key, entry in value.items() if key != DELETE}
    return value


def override(cfg: dict, dotted: str, value: Any) -> None:
    """Set one dotted key in place; dicts on the way are created, list positions must exist.

    A dict merges into the dict that is there, as `merge` does.
    """
    parts = dotted.split(".")
    if not all(parts):
        raise ConfigError(dotted, "expected key.path, each part a name or a position")
    node: Any = cfg
    for depth, part in enumerate(parts):
        here, last = ".".join(parts[: depth + 1]), depth == len(parts) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigError(
                    here, f"expected a position below {len(node)} in this list, got {part!r}"
                )
            key: Any = int(part)
        elif isinstance(node, dict):
            key = part
            if not last and node.get(key) is None:
                node[key] = {}
        else:
            raise ConfigError(here, f"{'.'.join(parts[:depth])} is {node!r}, it has no keys")
        if last:
            present = node[key] if isinstance(node, list) else node.get(key)
            node[key] = _over(value, present, here)
        elif isinstance(node[key], tuple):  # positions of a tuple can be set, too
            node[key] = list(node[key])
        node = node[key]


def _over(value: Any, present: Any, path: str) -> Any:
    if isinstance(value, Mapping) and isinstance(present, Mapping) and not value.get(DELETE):
        return merge(value, present, path)
    return without_marks(value)
