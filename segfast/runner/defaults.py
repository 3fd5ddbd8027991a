"""What a config may leave out: MMSegmentation's 20k schedule, IoU, ImageNet statistics."""

# SPDX-License-Identifier: Apache-2.0

import copy
from collections.abc import Mapping
from typing import Any

from segfast.config import plain_copy

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
    "timer": {"type": "IterTimerHook"},
    "sampler_seed": {"type": "DistSamplerSeedHook"},
    "visualization": {"type": "SegVisualizationHook"},
    "logger": {"type": "LoggerHook"},
    "param_scheduler": {"type": "ParamSchedulerHook"},
    "checkpoint": {"type": "CheckpointHook"},
}


def with_defaults(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config with everything filled in that has a sensible default."""
    cfg = plain_copy(cfg)
    if cfg.get("train_dataloader") is not None:
        cfg["train_cfg"] = {
            **({} if _has_length(cfg.get("train_cfg")) else TRAIN_CFG),
            **(cfg.get("train_cfg") or {}),
        }
        _resolve_by_epoch(cfg["train_cfg"])
        cfg.setdefault("optim_wrapper", copy.deepcopy(OPTIM_WRAPPER))
        cfg.setdefault("param_scheduler", _poly(cfg["train_cfg"]))
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
        if preprocessor is None and cfg["model"].get("type") == "Segmentor":
            preprocessor = copy.deepcopy(IMAGENET)
        if preprocessor is not None:
            cfg["model"] = {"data_preprocessor": preprocessor, **cfg["model"]}
    return cfg


def _has_length(train_cfg: Any) -> bool:
    return isinstance(train_cfg, Mapping) and (
        "max_iters" in train_cfg or "max_epochs" in train_cfg
    )


def _resolve_by_epoch(train_cfg: dict) -> None:
    """dict(by_epoch=True, max_epochs=...) names the loop; so does the length alone."""
    by_epoch = train_cfg.pop("by_epoch", "max_epochs" in train_cfg)
    train_cfg.setdefault("type", "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop")
    if train_cfg["type"] == "IterBasedTrainLoop":
        train_cfg.setdefault("val_interval", max(1, train_cfg.get("max_iters", 20000) // 10))


def _poly(train_cfg: dict) -> list[dict]:
    """PolyLR over the whole training, by iteration."""
    return [{"type": "PolyLR", "power": 0.9, "eta_min": 1e-4, "by_epoch": False}]
