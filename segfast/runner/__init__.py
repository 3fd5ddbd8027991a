"""The Runner and everything it drives: loops, hooks, optimiser wrappers, schedulers, checkpoints."""

# SPDX-License-Identifier: Apache-2.0

from segfast.runner.basic_visualization_hook import BasicVisualizationHook
from segfast.runner.builtin_hooks import (
    DistSamplerSeedHook,
    IterTimerHook,
    ParamSchedulerHook,
    RuntimeInfoHook,
)
from segfast.runner.checkpoint import load_checkpoint, save_checkpoint
from segfast.runner.checkpoint_hook import CheckpointHook
from segfast.runner.early_stopping_hook import EarlyStoppingHook
from segfast.runner.ema_hook import EMAHook
from segfast.runner.eval_loops import TestLoop, ValLoop
from segfast.runner.hooks import Hook
from segfast.runner.logger_hook import LoggerHook
from segfast.runner.loops import EpochBasedTrainLoop, IterBasedTrainLoop
from segfast.runner.message_hub import MessageHub
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
from segfast.runner.visualization_hook import SegVisualizationHook

__all__ = [
    "AmpOptimWrapper",
    "BasicVisualizationHook",
    "CheckpointHook",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineRestartLR",
    "DistSamplerSeedHook",
    "EMAHook",
    "EarlyStoppingHook",
    "EpochBasedTrainLoop",
    "ExponentialLR",
    "Hook",
    "IterBasedTrainLoop",
    "IterTimerHook",
    "LinearLR",
    "LoggerHook",
    "MessageHub",
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
    "RuntimeInfoHook",
    "SegVisualizationHook",
    "StepLR",
    "TestLoop",
    "ValLoop",
    "build_optim_wrapper",
    "load_checkpoint",
    "save_checkpoint",
]
