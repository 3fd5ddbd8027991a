"""Pictures: an image beside its truth and its prediction."""

# SPDX-License-Identifier: Apache-2.0

from segfast.visualization.backend import LocalVisBackend
from segfast.visualization.visualizer import SegLocalVisualizer

__all__ = ["LocalVisBackend", "SegLocalVisualizer"]
