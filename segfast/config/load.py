"""load_config: from a file or a dict to what the Runner reads."""

# SPDX-License-Identifier: Apache-2.0

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segfast.config.files import read_file
from segfast.config.keys import KNOWN_KEYS, RUNNER_KEYS, check_keys, check_kinds
from segfast.config.merge import override, plain_copy
from segfast.errors import ConfigError
from segfast.registry import did_you_mean

DEMO = Path(__file__).parents[1] / "demo_config.py"


def load_config(source: Any = None, overrides: Mapping[str, Any] | None = None) -> dict:
    """Read a config and apply overrides.

    Args:
        source: a dict (an mmengine Config is one), a path ending in .py, .yaml, .yml, .toml or .json, or
            None for the built-in demo. `_base_` in a file names one or several files to inherit from.
        overrides: dotted keys -> values, `{"train_cfg.max_iters": 400}`; digits index lists, a dict merges. A key that
            names a top-level variable of a Python config, or of its bases, replaces it before the file runs, so that
            everything computed from it follows.

    Returns:
        A plain dict holding only keys that the Runner reads.

    Raises:
        ConfigError: a file is missing or malformed, a key is unknown, or its value is of another kind.
    """
    overrides = dict(overrides or {})
    if hasattr(source, "to_dict"):  # mmengine's Config, which keeps the file's helper variables
        cfg = plain_copy(source.to_dict())
        check_keys(cfg, "config", variables=True)
    elif isinstance(source, Mapping):
        cfg = plain_copy(source)
        check_keys(cfg, "config")
    else:
        cfg, used = read_file(DEMO if source is None else Path(source), overrides)
        overrides = {key: value for key, value in overrides.items() if key not in used}
    for key, value in overrides.items():
        _check_override(cfg, key)
        override(cfg, key, copy.deepcopy(value))
    return check_kinds({key: value for key, value in cfg.items() if key in RUNNER_KEYS})


def _check_override(cfg: dict, dotted: str) -> None:
    """Refuse an override that would change nothing."""
    top = dotted.split(".")[0]
    if top in KNOWN_KEYS:
        return
    if top in cfg:
        hint = "give it a whole new value, or override the key that it ends up in"
        raise ConfigError(dotted, f"{top} is a variable that the file has used up ({hint})")
    raise ConfigError(dotted, f"unknown key{did_you_mean(top, RUNNER_KEYS | set(cfg))}")
