"""Checks of a data set's arguments: folders, indices, colours, what to do with unusable files."""

# SPDX-License-Identifier: Apache-2.0
import os
from collections.abc import Mapping, Sequence
from typing import Any

from segfast.errors import ConfigError
from segfast.registry import did_you_mean

_PREFIXES = ("img_path", "seg_map_path")
_DEFAULT_PREFIX = {"img_path": "images", "seg_map_path": "masks"}


def checked_colors(colors: Any) -> tuple[tuple[int, ...], ...] | None:
    """The colours as tuples."""
    if colors is None:
        return None
    try:
        checked = tuple(tuple(int(part) for part in color) for color in colors)
    except (TypeError, ValueError):
        checked = ()
    if not checked or any(len(c) != 3 or min(c) < 0 or max(c) > 255 for c in checked):
        raise ConfigError("mask_colors", f"expected a list of RGB colours, got {colors!r}")
    if len(set(checked)) < len(checked):
        raise ConfigError("mask_colors", "the same colour twice")
    return checked


def checked_policy(on_error: str, test_mode: bool) -> str:
    """What happens with an unusable file; metrics must not skip."""
    if on_error not in ("raise", "skip"):
        raise ConfigError("on_error", f"expected 'raise' or 'skip', got {on_error!r}")
    if on_error == "skip" and test_mode:
        problem = "'skip' would count another sample twice in the metrics; only training may skip"
        raise ConfigError("on_error", problem)
    return on_error


def join_prefixes(
    data_root: str, data_prefix: Mapping[str, str | None] | None
) -> dict[str, str | None]:
    """Both prefixes as paths; None where there is no such folder."""
    given = _DEFAULT_PREFIX if data_prefix is None else data_prefix
    for key in given:
        if key not in _PREFIXES:
            hint = did_you_mean(key, _PREFIXES)
            problem = f"expected {' and '.join(_PREFIXES)} only{hint}"
            raise ConfigError(f"data_prefix.{key}", problem)
    folders: dict[str, str | None] = {key: None for key in _PREFIXES}
    for key, value in given.items():
        folders[key] = None if value is None else os.path.join(data_root, os.path.expanduser(value))
    if folders["img_path"] is None:
        raise ConfigError("data_prefix.img_path", "missing, it names the folder of the images")
    return folders


def select(data_list: list[dict], indices: int | Sequence[int] | None) -> list[dict]:
    """The first n samples, or those of a list."""
    if indices is None:
        return data_list
    chosen = range(min(indices, len(data_list))) if isinstance(indices, int) else indices
    for place in chosen:
        if not -len(data_list) <= place < len(data_list):
            problem = f"{place} is out of range, there are {len(data_list)} samples"
            raise ConfigError("indices", problem)
    return [data_list[place] for place in chosen]
