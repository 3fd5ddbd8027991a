"""The top-level keys of a config: those the Runner reads, those that may stay, and what a misspelt one looks like."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterable

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


def is_helper(key: str) -> bool:
    """Whether a top-level name is a variable of the file: neither a key nor a misspelt one."""
    # 0.78 lies between `modle` (0.80) and the honest variable `train_dataset` (0.76).
    return key not in KNOWN_KEYS and not did_you_mean(key, RUNNER_KEYS, cutoff=0.78)


def check_keys(keys: Iterable[str], where: str, variables: bool = False) -> None:
    """Refuse unknown keys; where `variables` may stand, only those that look like a misspelt key."""
    for key in map(str, keys):
        if key not in KNOWN_KEYS and not (variables and is_helper(key)):
            raise ConfigError(key, f"unknown key in {where}{did_you_mean(key, RUNNER_KEYS)}")
