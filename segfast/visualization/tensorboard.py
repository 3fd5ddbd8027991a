"""TensorboardVisBackend: pictures and numbers for TensorBoard, which is installed separately."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segfast.errors import UserError
from segfast.registry import VISBACKENDS
from segfast.visualization.backend import plain_numbers


@VISBACKENDS.register_module()
class TensorboardVisBackend:
    """Writes event files into a folder.

    Args:
        save_dir: folder, created here.

    Raises:
        UserError: tensorboard is not installed.
    """

    def __init__(self, save_dir: str | Path) -> None:
        """Open the event file."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                f"TensorboardVisBackend needs tensorboard, which cannot be imported ({error}) (hint: pip install "
                "tensorboard)"
            ) from error
        self.save_dir = Path(save_dir)
        self.writer = SummaryWriter(str(save_dir))

    def add_image(self, name: str, image: np.ndarray, step: int = 0) -> None:
        """Add an (H, W, 3) uint8 RGB picture."""
        self.writer.add_image(name, image, step, dataformats="HWC")

    def add_scalars(self, scalars: Mapping[str, Any], step: int = 0) -> None:
        """Add numbers by name; 0-d tensors and arrays are read."""
        for name, value in plain_numbers(scalars).items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # a run that ends badly keeps its numbers

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()
