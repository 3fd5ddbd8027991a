"""Generated images of shapes as (image, labels), for the examples: put your own data set in its place."""

# SPDX-License-Identifier: Apache-2.0
import torch

from segfast.datasets.shapes import CLASSES, draw_shapes

__all__ = ["CLASSES", "MEAN", "STD", "Shapes"]

MEAN, STD = [123.7, 116.3, 103.5], [58.4, 57.1, 57.4]


class Shapes(torch.utils.data.Dataset):
    """Images (3, size, size) uint8 RGB and labels (size, size) uint8 with one of five classes a pixel."""

    def __init__(self, seed: int, count: int = 64, size: int = 64) -> None:
        """Draw nothing yet."""
        self.seed, self.count, self.size = seed, count, size

    def __len__(self) -> int:
        """How many images there are."""
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        image, labels = draw_shapes(self.seed, index, self.size)
        return torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1), torch.from_numpy(labels)
