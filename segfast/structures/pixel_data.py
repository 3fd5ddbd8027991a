"""PixelData: maps over the same pixels (labels, logits), one channel axis and one height, width."""

# SPDX-License-Identifier: Apache-2.0
import warnings
from typing import Any

import numpy as np
import torch

from segfast.structures.base import _NAME_SETS, BaseDataElement


class PixelData(BaseDataElement):
    """Data fields are tensors or arrays of shape (C, H, W), all of one H and W.

    A two-dimensional value (H, W) becomes (1, H, W), with a warning.
    """

    data: Any  # the usual field; others may be set

    def __setattr__(self, name: str, value: Any) -> None:
        """Make a data field of shape (C, H, W).

        Raises:
            AssertionError: neither a tensor nor an array, not 2-d or 3-d, or of another H or W
                than the fields that are there (delete them first to change the size).
        """
        if name in _NAME_SETS:
            super().__setattr__(name, value)
            return
        kinds = (torch.Tensor, np.ndarray)
        assert isinstance(value, kinds), f"{name} should be a tensor or array, got {type(value)}"
        assert value.ndim in (2, 3), f"{name} should be (H, W) or (C, H, W), got {value.shape}"
        size = tuple(value.shape[-2:])
        assert self.shape in (None, size), f"{name} is {size}, the other fields are {self.shape}"
        if value.ndim == 2:
            warnings.warn(
                f"{name} is (H, W), stored as (1, {size[0]}, {size[1]})", UserWarning, stacklevel=2
            )
            value = value[None]
        super().__setattr__(name, value)

    def __getitem__(self, item: tuple[int | slice, int | slice]) -> "PixelData":
        """Crop height and width; an int keeps its dimension with size 1.

        Raises:
            TypeError: `item` is no pair of ints or slices.
        """
        if not isinstance(item, tuple):
            raise TypeError(f"Unsupported type {type(item)} for slicing PixelData")
        assert len(item) == 2, f"expected an index for height and width, got {len(item)} of them"
        window = tuple(_as_slice(index) for index in item)
        cropped = type(self)(metainfo=self.metainfo)
        for name, value in self.items():
            setattr(cropped, name, value[(slice(None), *window)])
        return cropped

    @property
    def shape(self) -> tuple[int, int] | None:
        """(H, W), or None while there is no field."""
        for _, value in self.items():
            return tuple(value.shape[-2:])
        return None


def _as_slice(index: int | slice) -> slice:
    if isinstance(index, slice):
        return index
    if isinstance(index, int):
        return slice(index, index + 1 or None)
    raise TypeError(f"The type of element in input must be int or slice, but got {type(index)}")
