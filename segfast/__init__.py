"""Semantic segmentation training for PyTorch: fused operators under a thin Runner."""

# SPDX-License-Identifier: Apache-2.0

from segfast import datasets, evaluation, models, ops, registry, runner, structures, visualization
from segfast._native import build_info
from segfast.api import TrainResult, predict, test, train
from segfast.datasets import *  # noqa: F403
from segfast.evaluation import *  # noqa: F403
from segfast.models import *  # noqa: F403
from segfast.runner import *  # noqa: F403
from segfast.structures import *  # noqa: F403
from segfast.visualization import *  # noqa: F403

__version__ = build_info()["version"]
__all__ = [
    "TrainResult",
    "__version__",
    "build_info",
    "datasets",
    "evaluation",
    "models",
    "ops",
    "predict",
    "registry",
    "runner",
    "structures",
    "test",
    "train",
    "visualization",
    *datasets.__all__,
    *evaluation.__all__,
    *models.__all__,
    *runner.__all__,
    *structures.__all__,
    *visualization.__all__,
]
