"""LabelData: the class label of a whole image."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segfast.structures.base import BaseDataElement


class LabelData(BaseDataElement):
    """Label-level truth or prediction; the usual field is `label`, a tensor."""

    label: Tensor

    @staticmethod
    def onehot_to_label(onehot: Tensor) -> Tensor:
        """The places of the ones.

        Args:
            onehot: (C,), values 0 and 1.

        Returns:
            (K,) int64.

        Raises:
            ValueError: not one-dimensional, or a value outside [0, 1].
        """
        assert isinstance(onehot, Tensor), f"expected a tensor, got {type(onehot)}"
        if onehot.ndim != 1 or onehot.max() > 1 or onehot.min() < 0:
            raise ValueError(f"expected a one-hot vector (C,) of zeros and ones, got {onehot}")
        return onehot.nonzero().squeeze(-1)

    @staticmethod
    def label_to_onehot(label: Tensor, num_classes: int) -> Tensor:
        """A vector (num_classes,) of label's dtype with ones at the labels.

        Args:
            label: (K,) int64 in [0, num_classes).
            num_classes: length of the result.

        Raises:
            AssertionError: a label is not below `num_classes`.
        """
        assert isinstance(label, Tensor), f"expected a tensor, got {type(label)}"
        fits = label.numel() == 0 or bool(label.max() < num_classes)
        assert fits, f"expected labels below num_classes {num_classes}, got {label}"
        onehot = label.new_zeros((num_classes,))
        onehot[label] = 1
        return onehot


def format_label(value: Any, num_classes: int | None = None) -> LabelData:
    """A label in any of the usual forms as LabelData.

    Args:
        value: int, 0-d or n-d tensor or array, or a sequence of numbers; one number becomes (1,) int64.
        num_classes: kept as metainfo and checked against, where given.

    Raises:
        TypeError: `value` has another type.
        ValueError: a label is not below `num_classes`.
    """
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0:
        value = int(value.item())
    is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if not (is_list or isinstance(value, (int, Tensor, np.ndarray))):
        raise TypeError(f"Type {type(value)} is not an available label type.")
    label = torch.as_tensor([value] if isinstance(value, int) else value)
    if num_classes is None:
        return LabelData(label=label)
    if label.max() >= num_classes:
        raise ValueError(f"The label data ({label}) should not exceed num_classes ({num_classes}).")
    return LabelData(label=label, metainfo={"num_classes": num_classes})
