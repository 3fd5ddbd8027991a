"""The Runner and everything it drives: loops, hooks, optimiser wrappers, schedulers, checkpoints."""

# SPDX-License-Identifier: Apache-2.0

from segfast.runner.builtin_hooks import (
    DistSamplerSeedHook,
    IterTimerHook,
    LoggerHook,
    ParamSchedulerHook,
    SegVisualizationHook,
)
from segfast.runner.checkpoint import load_checkpoint, save_checkpoint
from segfast.runner.checkpoint_hook import CheckpointHook
from segfast.runner.hooks import Hook
from segfast.runner.loops import EpochBasedTrainLoop, IterBasedTrainLoop, TestLoop, ValLoop
from segfast.runner.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from segfast.runner.runner import Runner
from segfast.runner.schedulers import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    MultiStepLR,
    ParamScheduler,
    PolyLR,
)

__all__ = [
    "AmpOptimWrapper",
    "CheckpointHook",
    "ConstantLR",
    "CosineAnnealingLR",
    "DistSamplerSeedHook",
    "EpochBasedTrainLoop",
    "Hook",
    "IterBasedTrainLoop",
    "IterTimerHook",
    "LinearLR",
    "LoggerHook",
    "MultiStepLR",
    "OptimWrapper",
    "ParamScheduler",
    "ParamSchedulerHook",
    "PolyLR",
    "Runner",
    "SegVisualizationHook",
    "TestLoop",
    "ValLoop",
    "build_optim_wrapper",
    "load_checkpoint",
    "save_checkpoint",
]
