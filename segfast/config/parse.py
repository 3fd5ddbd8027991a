"""Text of yaml, toml and json to plain values, with bounds on nesting and on what aliases unfold to."""

# SPDX-License-Identifier: Apache-2.0

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from segfast.errors import ConfigError

MAX_DEPTH = 50
MAX_ENTRIES = 100_000  # of dicts and lists, each alias counted as often as it is used


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-3 as a number, where YAML 1.1 wants 1.0e-3, and stops where a text holds too much."""

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self.where, self.nodes = where, 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Counted: a megabyte of commas takes minutes."""
        self.nodes += 1
        if self.nodes > MAX_ENTRIES:
            raise ConfigError("", f"{self.where}: more than {MAX_ENTRIES} entries")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse(path: Path, text: str) -> dict[str, Any]:
    """What a yaml, toml or json file holds.

    Raises:
        ConfigError: it is malformed, has a tag that would make an object, or unfolds to too much.
    """
    try:
        if path.suffix == ".toml":
            _check_dotted_keys(text, str(path))
            tree = tomllib.loads(text)
        elif path.suffix == ".json":
            tree = json.loads(text)
        else:
            tree = _yaml(text, str(path))
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError("", f"{path}: nested deeper than {MAX_DEPTH} levels") from None
    except Exception as error:  # yaml's constructors stumble over wrong tags in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError("", f"{path}: {reason}") from None
    if not isinstance(tree, dict):
        kind = type(tree).__name__
        raise ConfigError("", f"{path}: expected keys and values at the top, got {kind}")
    check_size(tree, str(path))
    return tree


def _check_dotted_keys(text: str, where: str) -> None:
    """Refuse `a.a.a...`, for which tomllib takes the square of its length, before it is parsed."""
    parts = re.split(r"([=\n,{}\[\]])", text)
    for part, end in zip(parts[::2], [*parts[1::2], ""], strict=False):
        if end in ("=", "]") and part.count(".") > MAX_DEPTH:
            raise ConfigError("", f"{where}: a key nested deeper than {MAX_DEPTH} levels")


def _yaml(text: str, where: str) -> Any:
    """The first document, its aliases counted before anything is made of them."""
    loader = _Loader(text, where)  # safe: a SafeLoader
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        check_size(node, where)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def check_size(tree: Any, where: str) -> None:
    """Refuse a tree that is too deep, or too large once every alias is unfolded.

    Args:
        tree: dicts and lists, or yaml's nodes; a branch may hang in several places, or in itself.
        where: for messages.

    Raises:
        ConfigError: it is.
    """
    # Of branches that are known: an alias is counted without being walked again.
    sizes: dict[int, int] = {}

    def size(branch: Any, depth: int) -> int:
        children = _children(branch)
        if children is None:
            return 1
        if depth > MAX_DEPTH:
            raise ConfigError("", f"{where}: nested deeper than {MAX_DEPTH} levels")
        if id(branch) not in sizes:
            sizes[id(branch)] = 1 + sum(size(child, depth + 1) for child in children)
        if sizes[id(branch)] > MAX_ENTRIES:
            raise ConfigError("", f"{where}: more than {MAX_ENTRIES} entries, aliases unfolded")
        return sizes[id(branch)]

    size(tree, 1)


def _children(branch: Any) -> list | None:
    """What hangs on a branch; None for a leaf."""
    if isinstance(branch, yaml.MappingNode):
        return [node for pair in branch.value for node in pair]
    if isinstance(branch, yaml.SequenceNode):
        return branch.value
    if isinstance(branch, Mapping):
        return list(branch.values())
    return list(branch) if isinstance(branch, (list, tuple)) else None
