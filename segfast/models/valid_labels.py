"""Which pixels count: labels that name a class, and errors for those that name nothing."""

# SPDX-License-Identifier: Apache-2.0
import torch
from torch import Tensor

from segfast import ops


def equals(label: Tensor, value: int | None) -> Tensor:
    """Where a label is `value`; nowhere if its dtype cannot hold that (uint8 would wrap -100 to 156)."""
    if value is None or not (label.is_floating_point() or _fits(value, label.dtype)):
        return torch.zeros_like(label, dtype=torch.bool)
    return label == value


def valid_pixels(label: Tensor, num_classes: int, *ignored: int | None) -> Tensor:
    """The pixels whose label names a class.

    Args:
        label: any shape, integer.
        num_classes: labels are in [0, num_classes).
        ignored: labels that count nowhere; None and values that the dtype cannot hold mean nothing.

    Returns:
        label's shape, bool.

    Raises:
        LabelError: on the CPU, a label is outside [0, num_classes) and not ignored; on CUDA it is
            tallied, see `segfast.ops.check_labels`, and counts as ignored.
    """
    fitting = [value for value in ignored if value is not None and _fits(value, label.dtype)]
    for value in fitting[1:]:
        label = label.masked_fill(label == value, fitting[0])
    ignore_index = fitting[0] if fitting else -1 - num_classes
    # Counted for the check that comes with it: one pass over the labels.
    ops.confusion_matrix(label, label, num_classes, ignore_index=ignore_index)
    return (label >= 0) & (label < num_classes) & ~equals(label, ignore_index)


def _fits(value: int, dtype: torch.dtype) -> bool:
    limits = torch.iinfo(dtype)
    return limits.min <= value <= limits.max
