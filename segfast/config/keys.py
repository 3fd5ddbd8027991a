"""The top-level keys of a config: those the Runner reads, those that may stay, and what a misspelt one looks like."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterable, Mapping
from typing import Any

from segfast.errors import ConfigError
from segfast.registry import did_you_mean

# What Runner.from_cfg reads, and keys of the same world that may stay in a file without being read here.
RUNNER_KEYS = {
    "model", "data_preprocessor", "train_dataloader", "val_dataloader", "test_dataloader",
    "train_cfg", "val_cfg", "test_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr", "val_evaluator",
    "test_evaluator", "default_hooks", "custom_hooks", "load_from", "resume", "visualizer", "launcher", "env_cfg",
    "log_processor", "log_level", "default_scope", "randomness", "work_dir", "device", "experiment_name", "quiet",
    "custom_imports", "model_wrapper_cfg", "sync_bn", "find_unused_parameters", "compile",
    "activation_checkpointing", "efficient_conv_bn_eval", "runner_type",
}  # fmt: skip
TOLERATED_KEYS = {"vis_backends", "tta_model", "tta_pipeline", "cfg"}
KNOWN_KEYS = RUNNER_KEYS | TOLERATED_KEYS

_DICTS = (
    "default_hooks", "env_cfg", "log_processor", "randomness", "custom_imports", "model_wrapper_cfg", "auto_scale_lr",
)  # fmt: skip
_LISTS = ("custom_hooks",)
_PARTS = (
    "model", "data_preprocessor", "train_dataloader", "val_dataloader", "test_dataloader", "train_cfg", "val_cfg",
    "test_cfg", "optim_wrapper", "visualizer",
)  # fmt: skip
_PARTS_OR_LISTS = ("param_scheduler", "val_evaluator", "test_evaluator")
_FLAGS = ("resume", "quiet", "find_unused_parameters")
_TEXTS = ("work_dir", "load_from", "experiment_name", "launcher", "sync_bn")


def is_helper(key: str) -> bool:
    """Whether a top-level name is a variable of the file: neither a key nor a misspelt one."""
    # 0.78 lies between `modle` (0.80) and the honest variable `train_dataset` (0.76).
    return key not in KNOWN_KEYS and not did_you_mean(key, RUNNER_KEYS, cutoff=0.78)


def check_keys(keys: Iterable[str], where: str, variables: bool = False) -> None:
    """Refuse unknown keys; where `variables` may stand, only those that look like a misspelt key."""
    for key in map(str, keys):
        if key not in KNOWN_KEYS and not (variables and is_helper(key)):
            raise ConfigError(key, f"unknown key in {where}{did_you_mean(key, RUNNER_KEYS)}")


def check_kinds(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which every top-level key has a value of its kind; a number that names something is its text.

    Raises:
        ConfigError: a list where a dict belongs, a word where there is yes or no.
    """
    return {key: value if value is None else _of_its_kind(key, value) for key, value in cfg.items()}


def _of_its_kind(key: str, value: Any) -> Any:
    plain = isinstance(value, (str, bytes, int, float, list, tuple, set))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if key in _DICTS and not isinstance(value, Mapping):
        raise ConfigError(key, f"expected a dict, got {value!r}")
    if key in _LISTS and not isinstance(value, (list, tuple)):
        raise ConfigError(key, f"expected a list, got {value!r}")
    if key in _PARTS and plain:
        raise ConfigError(key, f"expected a dict, or an object that is built, got {value!r}")
    if key in _PARTS_OR_LISTS and plain and not isinstance(value, (list, tuple)):
        raise ConfigError(key, f"expected a dict or a list of them, got {value!r}")
    if key in _FLAGS and value not in (True, False):
        raise ConfigError(key, f"expected True or False, got {value!r}")
    if key == "device" and isinstance(value, (Mapping, list, tuple, bool)):
        raise ConfigError(key, f"expected the name of a device, got {value!r}")
    if key in _TEXTS and number:
        return str(value)
    if key in _TEXTS and (plain or isinstance(value, Mapping)) and not isinstance(value, str):
        raise ConfigError(key, f"expected a name, got {value!r}")
    return value
