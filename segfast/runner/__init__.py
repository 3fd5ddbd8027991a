"""The Runner and everything it drives: loops, hooks, optimiser wrappers, schedulers, checkpoints."""

# SPDX-License-Identifier: Apache-2.0

from segfast.runner.basic_visualization_hook import BasicVisualizationHook
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
from segfast.runner.momentum import PolyMomentum
from segfast.runner.optim import AmpOptimWrapper, OptimWrapper
from segfast.runner.optim_build import build_optim_wrapper
from segfast.runner.optim_dict import OptimWrapperDict
from segfast.runner.plateau import ReduceOnPlateauLR
from segfast.runner.runner import Runner
from segfast.runner.scheduler import ParamScheduler
from segfast.runner.schedulers import (
    ConstantLR,
    CosineAnnealingLR,
    CosineRestartLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolyLR,
    StepLR,
)

__all__ = [
    "AmpOptimWrapper",
    "BasicVisualizationHook",
    "CheckpointHook",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineRestartLR",
    "DistSamplerSeedHook",
    "EpochBasedTrainLoop",
    "ExponentialLR",
    "Hook",
    "IterBasedTrainLoop",
    "IterTimerHook",
    "LinearLR",
    "LoggerHook",
    "MultiStepLR",
    "OneCycleLR",
    "OptimWrapper",
    "OptimWrapperDict",
    "ParamScheduler",
    "ParamSchedulerHook",
    "PolyLR",
    "PolyMomentum",
    "ReduceOnPlateauLR",
    "Runner",
    "SegVisualizationHook",
    "StepLR",
    "TestLoop",
    "ValLoop",
    "build_optim_wrapper",
    "load_checkpoint",
    "save_checkpoint",
]
