"""Pictures: an image beside its truth and its prediction; where pictures and numbers go."""

# SPDX-License-Identifier: Apache-2.0

from segfast.visualization.backend import LocalVisBackend
from segfast.visualization.concat_visualizer import ConcatImageVisualizer
from segfast.visualization.tensorboard import TensorboardVisBackend
from segfast.visualization.visualizer import SegLocalVisualizer

__all__ = [
    "ConcatImageVisualizer",
    "LocalVisBackend",
    "SegLocalVisualizer",
    "TensorboardVisBackend",
]
