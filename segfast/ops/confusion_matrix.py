"""Confusion matrix of label maps, counted exactly and without waiting for the device.

Math: `counts[t, p] = #{pixels: target = t, pred = p, t != ignore_index}` in int64: no float, so no saturation at 2^24.

Source: torchmetrics.functional.confusion_matrix and MMSegmentation's IoUMetric (semantics of the ignored label).
"""

# SPDX-License-Identifier: Apache-2.0

import torch
from torch import Tensor

import segfast._native  # noqa: F401  (registers torch.ops.segfast)
from segfast.ops._call import call_checked
from segfast.ops._checks import check_label_map, counts_to_fill

_NAME = "segfast::confusion_matrix"


def confusion_matrix(
    pred: Tensor,
    target: Tensor,
    num_classes: int,
    *,
    ignore_index: int = 255,
    out: Tensor | None = None,
) -> Tensor:
    """Count (target, pred) pairs.

    Args:
        pred: any shape, uint8, int16, int32 or int64, values in [0, num_classes).
        target: pred's shape, uint8, int16, int32 or int64, values in [0, num_classes) or `ignore_index`.
        num_classes: C >= 1.
        ignore_index: pixels whose target is this leave both sides.
        out: (C, C) int64 contiguous; counts are added in place, so that a loop needs no second matrix.

    Returns:
        (C, C) int64 on pred's device, row = target, column = pred; `out` itself when it was given.

    Raises:
        ValueError: shapes, devices or `out` do not fit.
        TypeError: a dtype that is not listed above.
        LabelError: on the CPU, a target or prediction outside [0, C); `out` is then unchanged. On CUDA such a pixel is
            left out and `segfast.ops.check_labels()` raises.

    Note:
        Exact and the same on every run; never waits for the device.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 255]), 2).tolist()
    [[1, 0], [0, 1]]
    """
    for name, labels in (("pred", pred), ("target", target)):
        check_label_map("confusion_matrix", name, labels, "argmax first")
    if pred.shape != target.shape:
        raise ValueError(
            f"{_NAME}: expected pred and target of one shape, got {tuple(pred.shape)} and {tuple(target.shape)}"
        )
    if pred.device != target.device:
        raise ValueError(
            f"{_NAME}: expected pred and target on one device, got {pred.device} and {target.device}"
        )
    if num_classes < 1:
        raise ValueError(f"{_NAME}: expected num_classes >= 1, got {num_classes}")
    out = counts_to_fill("confusion_matrix", out, num_classes, pred.device)
    call_checked(torch.ops.segfast.confusion_matrix_, out, pred, target, ignore_index)
    return out


def confusion_matrix_reference(
    pred: Tensor,
    target: Tensor,
    num_classes: int,
    *,
    ignore_index: int = 255,
    out: Tensor | None = None,
) -> Tensor:
    """The eager composition that defines `confusion_matrix`: mask, combine, bincount."""
    label = target.long()
    keep = label != ignore_index
    pairs = label[keep] * num_classes + pred.long()[keep]
    counts = torch.bincount(pairs.flatten(), minlength=num_classes**2).view(
        num_classes, num_classes
    )
    return counts if out is None else out.add_(counts)


@torch.library.register_fake("segfast::confusion_matrix_")
def _fake(counts, pred, target, ignore_index):
    return None
