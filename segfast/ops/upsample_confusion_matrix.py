"""Confusion matrix straight from low-resolution logits: resize, decide and count in one pass.

Math: `confusion_matrix(upsample_argmax(logits, (H, W)), target, C)`. A pixel's class goes from a register into the
counts: neither the resized logits nor a prediction is written. Pixels with the ignored label are not even decided.

Source: torch.nn.functional.interpolate, torch.argmax and MMSegmentation's IoUMetric (semantics). The fusion is ours.
"""

# SPDX-License-Identifier: Apache-2.0

import torch
from torch import Tensor

from segfast.ops._call import call_checked
from segfast.ops._checks import check_logits, check_target, check_upsampled, counts_to_fill
from segfast.ops.confusion_matrix import confusion_matrix_reference
from segfast.ops.upsample_argmax import upsample_argmax_reference


def upsample_confusion_matrix(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    align_corners: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Count (target, predicted class) pairs of logits resized to the target's size.

    Args:
        logits: (N, C, h, w), float32, float64, float16 or bfloat16, any strides; h, w of any ratio to H, W.
        target: (N, H, W), uint8, int16, int32 or int64, values in [0, C) or `ignore_index`.
        ignore_index: pixels whose target is this leave both sides.
        align_corners: as in `torch.nn.functional.interpolate`.
        out: (C, C) int64 contiguous; counts are added in place, so that a loop needs no second matrix.

    Returns:
        (C, C) int64 on logits' device, row = target, column = prediction (see `upsample_argmax`); `out` itself when it
        was given.

    Raises:
        ValueError: shapes, devices or `out` do not fit.
        TypeError: a dtype that is not listed above.
        LabelError: on the CPU, a label is outside [0, C) and not `ignore_index`; `out` is then unchanged. On CUDA
            such a pixel is left out and `segfast.ops.check_labels()` raises.

    Note:
        Exact counts, the same on every run. Never waits for the device.

    >>> logits = torch.tensor([[[[0.0, 3.0]], [[1.0, 1.0]]]])
    >>> upsample_confusion_matrix(logits, torch.tensor([[[1, 0, 0, 255]]])).tolist()
    [[1, 1], [0, 1]]
    """
    op = "upsample_confusion_matrix"
    check_logits(op, logits)
    check_target(op, target, logits)
    check_upsampled(op, logits, target)
    out = counts_to_fill(op, out, logits.shape[1], logits.device)
    call_checked(
        torch.ops.segfast.upsample_confusion_matrix_,
        out,
        logits.detach(),
        target,
        ignore_index,
        align_corners,
    )
    return out


def upsample_confusion_matrix_reference(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    align_corners: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """The eager composition that defines `upsample_confusion_matrix`: interpolate, argmax, mask, bincount."""
    pred = upsample_argmax_reference(logits, target.shape[1:], align_corners=align_corners)
    return confusion_matrix_reference(
        pred, target, logits.shape[1], ignore_index=ignore_index, out=out
    )


@torch.library.register_fake("segfast::upsample_confusion_matrix_")
def _fake(counts, logits, target, ignore_index, align_corners):
    return None
