"""Checks of a data set's arguments: folders, indices, colours, storage, what to do with unusable files."""

# SPDX-License-Identifier: Apache-2.0
import os
from collections.abc import Mapping, Sequence
from typing import Any

from segfast.errors import ConfigError
from segfast.registry import did_you_mean

_PREFIXES = ("img_path", "seg_map_path")
_DEFAULT_PREFIX = {"img_path": "images", "seg_map_path": "masks"}
_LOCAL = ("local", "disk", "LocalBackend", "HardDiskBackend")  # MMEngine's names for a local file
_DECODERS = ("cv2", "pillow", "turbojpeg", "tifffile")


def checked_backend(backend_args: Any, name: str = "backend_args") -> dict | None:
    """A copy of MMEngine's storage arguments, which have to mean local files.

    Raises:
        ConfigError: another storage, or no dict.
    """
    if backend_args is None:
        return None
    if not isinstance(backend_args, Mapping):
        raise ConfigError(name, f"expected None or dict(backend='local'), got {backend_args!r}")
    backend = backend_args.get("backend", "local")
    if backend not in _LOCAL:
        raise ConfigError(
            f"{name}.backend",
            f"expected 'local', got {backend!r}: files are read from folders only; "
            "mount that storage or copy the data, and give the folder as data_root",
        )
    return dict(backend_args)


def checked_decoder(decoder: str | None) -> str | None:
    """The name of one of MMCV's decoders.

    Raises:
        ConfigError: any other name.
    """
    if decoder is not None and decoder not in _DECODERS:
        known = ", ".join(_DECODERS)
        raise ConfigError("imdecode_backend", f"expected one of {known}, got {decoder!r}")
    return decoder


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
    data_root: str, data_prefix: Mapping[str, str | os.PathLike | None] | None
) -> dict[str, str | None]:
    """All prefixes as paths; None where there is no such folder.

    Other keys than `img_path` and `seg_map_path` are for subclasses that load further files.

    Raises:
        ConfigError: `img_path` is missing, a key is one of the two misspelt, or a value is no path.
    """
    given = _DEFAULT_PREFIX if data_prefix is None else data_prefix
    missing = [key for key in _PREFIXES if key not in given]
    folders: dict[str, str | None] = {key: None for key in _PREFIXES}
    for key, value in given.items():
        hint = "" if key in _PREFIXES else did_you_mean(key, missing)
        if hint:
            raise ConfigError(f"data_prefix.{key}", f"no such key{hint}")
        try:
            folder = None if value is None else os.path.expanduser(os.fspath(value))
        except TypeError:
            problem = f"expected a path, got {value!r}"
            raise ConfigError(f"data_prefix.{key}", problem) from None
        folders[key] = None if folder is None else os.path.join(data_root, folder)
    if folders["img_path"] is None:
        raise ConfigError("data_prefix.img_path", "missing, it names the folder of the images")
    return folders


def select(data_list: list[dict], indices: int | Sequence[int] | None) -> list[dict]:
    """The first n samples, the last n for -n, or those of a list."""
    if indices is None:
        return data_list
    if isinstance(indices, int):
        return data_list[:indices] if indices >= 0 else data_list[indices:]
    for place in indices:
        if not -len(data_list) <= place < len(data_list):
            problem = f"{place} is out of range, there are {len(data_list)} samples"
            raise ConfigError("indices", problem)
    return [data_list[place] for place in indices]
