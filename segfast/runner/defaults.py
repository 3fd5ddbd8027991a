"""What a config may leave out: MMSegmentation's 20k schedule, IoU, ImageNet statistics."""

# SPDX-License-Identifier: Apache-2.0

import copy
import inspect
from collections.abc import Mapping
from typing import Any

from segfast.config import plain_copy
from segfast.errors import ConfigError
from segfast.models import BaseSegmentor
from segfast.registry import MODELS

IMAGENET = {
    "type": "SegDataPreProcessor",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "bgr_to_rgb": True,
}

TRAIN_CFG = {"type": "IterBasedTrainLoop", "max_iters": 20000, "val_interval": 2000}
OPTIM_WRAPPER = {
    "type": "OptimWrapper",
    "optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005},
}
HOOKS: dict[str, dict] = {
    "runtime_info": {"type": "RuntimeInfoHook"},
    "timer": {"type": "IterTimerHook"},
    "sampler_seed": {"type": "DistSamplerSeedHook"},
    "visualization": {"type": "SegVisualizationHook"},
    "logger": {"type": "LoggerHook"},
    "param_scheduler": {"type": "ParamSchedulerHook"},
    "checkpoint": {"type": "CheckpointHook"},
}


def with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config with everything filled in that has a sensible default."""
    cfg: dict[str, Any] = plain_copy(given)
    if cfg.get("train_dataloader") is not None:
        cfg["train_cfg"] = train_cfg(cfg.get("train_cfg") or {})
        cfg["optim_wrapper"] = _optim_wrapper(cfg.get("optim_wrapper") or {})
        cfg.setdefault("param_scheduler", _poly(cfg["optim_wrapper"]))
        cfg["default_hooks"] = _hooks(cfg.get("default_hooks") or {}, cfg["train_cfg"])
    for mode, loop in (("val", "ValLoop"), ("test", "TestLoop")):
        if cfg.get(f"{mode}_dataloader") is not None:
            cfg[f"{mode}_cfg"] = {"type": loop, **(cfg.get(f"{mode}_cfg") or {})}
            if cfg.get(f"{mode}_evaluator") is None:
                cfg[f"{mode}_evaluator"] = {"type": "IoUMetric"}
        else:
            cfg.pop(f"{mode}_cfg", None)
            cfg.pop(f"{mode}_evaluator", None)
    preprocessor = cfg.pop("data_preprocessor", None)
    if isinstance(cfg.get("model"), Mapping):
        if preprocessor is None and _takes_images(cfg["model"].get("type")):
            preprocessor = copy.deepcopy(IMAGENET)
        if preprocessor is not None:
            cfg["model"] = {"data_preprocessor": preprocessor, **cfg["model"]}
    return cfg


def _takes_images(kind: Any) -> bool:
    """Whether a model's `type`, a name or a class, is a segmentor whose preprocessor the config chooses."""
    found = MODELS.get(kind) if isinstance(kind, str) and kind in MODELS else kind
    if not isinstance(found, type) or not issubclass(found, BaseSegmentor):
        return False
    arguments = inspect.signature(found).parameters
    return "data_preprocessor" in arguments or any(
        p.kind is p.VAR_KEYWORD for p in arguments.values()
    )


def train_cfg(given: Any) -> Any:
    """dict(by_epoch=True, max_epochs=...) names the loop; so does the length alone.

    Raises:
        ConfigError: both `type` and `by_epoch`.
    """
    if not isinstance(given, Mapping):
        return given
    cfg: dict[str, Any] = dict(given)
    if "by_epoch" in cfg and "type" in cfg:
        raise ConfigError(
            "train_cfg.by_epoch", f"only one of type and by_epoch, {cfg['type']} is given"
        )
    by_epoch = cfg.pop("by_epoch", "max_epochs" in cfg)
    cfg.setdefault("type", "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop")
    if cfg["type"] != "IterBasedTrainLoop":
        return cfg
    if "max_iters" not in cfg:
        return {**TRAIN_CFG, **cfg}
    if isinstance(cfg["max_iters"], int):
        cfg.setdefault("val_interval", max(1, cfg["max_iters"] // 10))
    return cfg


def _optim_wrapper(given: Any) -> Any:
    """What a wrapper or its optimiser leaves out is MMSegmentation's SGD; several wrappers say everything."""
    if not isinstance(given, Mapping) or _is_several(given):
        return given
    default: dict[str, Any] = OPTIM_WRAPPER["optimizer"]  # type: ignore[assignment]
    optimizer = given.get("optimizer") or {}
    if isinstance(optimizer, Mapping) and optimizer.get("type") is None:
        optimizer = {**default, **optimizer}
    return {"type": OPTIM_WRAPPER["type"], **given, "optimizer": optimizer}


def _is_several(optim_wrapper: Mapping) -> bool:
    """Whether these are wrappers by name, of a model whose parts take turns."""
    return "optimizer" not in optim_wrapper and any(
        isinstance(value, Mapping) and "optimizer" in value for value in optim_wrapper.values()
    )


def _poly(optim_wrapper: Any) -> list[dict]:
    """PolyLR over the whole training, by iteration, to a hundredth of the start, or 1e-4 where that is less."""
    if isinstance(optim_wrapper, Mapping) and _is_several(optim_wrapper):
        return []
    lr = optim_wrapper["optimizer"].get("lr") if isinstance(optim_wrapper, Mapping) else None
    eta_min = min(1e-4, lr / 100) if isinstance(lr, (int, float)) else 0.0
    return [{"type": "PolyLR", "power": 0.9, "eta_min": eta_min, "by_epoch": False}]


def _hooks(given: Mapping[str, Any], train_cfg: Any) -> dict[str, Any]:
    """Checkpoints are saved as often as the model is validated, counted as the loop counts."""
    hooks = dict(given)
    change = hooks.get("checkpoint", {})
    if isinstance(change, Mapping) and isinstance(train_cfg, Mapping):
        by_epoch = train_cfg["type"] == "EpochBasedTrainLoop"
        interval = train_cfg.get("val_interval", 1 if by_epoch else -1)
        hooks["checkpoint"] = {"interval": interval, "by_epoch": by_epoch, **change}
    return hooks
