"""The `test_cfg` of a segmentor: whole images or sliding windows, and what samples carry."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping
from typing import Any

from segfast.errors import ConfigError
from segfast.registry import did_you_mean

_KNOWN = ("mode", "crop_size", "stride", "gaussian", "keep_logits", "threshold")


class AttributeDict(dict):
    """A dict whose keys are attributes too: `cfg.mode` is `cfg["mode"]`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no key {name!r} (there are {sorted(self)})") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def checked_test_cfg(
    test_cfg: Mapping[str, Any] | None, owner: str, *, others: bool = False
) -> AttributeDict:
    """Fill in and check a `test_cfg`.

    Args:
        test_cfg: `mode` ("whole" or "slide"), `keep_logits`, and for "slide" `crop_size`, `stride`
            (each one int or (vertical, horizontal)) and `gaussian`.
        owner: the class that reads it, for messages.
        others: let keys pass that only the heads know, unless they look misspelt.

    Raises:
        ConfigError: an unknown key or mode; windows that are missing or leave gaps.
    """
    cfg = AttributeDict({"mode": "whole", "keep_logits": None, **(test_cfg or {})})
    for key in cfg:
        hint = did_you_mean(key, _KNOWN)
        if key not in _KNOWN and (hint or not others):
            known = f"it has {', '.join(_KNOWN)}"
            raise ConfigError(
                f"test_cfg.{key}", f"{owner} has no such setting{hint or f' ({known})'}"
            )
    if cfg.mode not in ("whole", "slide"):
        raise ConfigError("test_cfg.mode", f"{owner} knows 'whole' and 'slide', got {cfg.mode!r}")
    if cfg.mode == "slide":
        cfg.crop_size = _pair(cfg, "crop_size")
        cfg.stride = _pair(cfg, "stride")
        if cfg.stride[0] > cfg.crop_size[0] or cfg.stride[1] > cfg.crop_size[1]:
            problem = f"{cfg.stride} leaves gaps between windows of crop_size {cfg.crop_size}"
            raise ConfigError("test_cfg.stride", problem)
    return cfg


def _pair(cfg: Mapping[str, Any], key: str) -> tuple[int, int]:
    value: Any = cfg.get(key)
    pair: Any = (value, value) if isinstance(value, int) else value
    is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2
    if not is_pair or not all(isinstance(n, int) and n > 0 for n in pair):
        problem = f"mode 'slide' needs (height, width) in pixels here, got {value!r}"
        raise ConfigError(f"test_cfg.{key}", problem)
    return int(pair[0]), int(pair[1])
