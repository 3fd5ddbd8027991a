"""segmentation_models_pytorch: its cross-entropy and its statistics, on logits at any stride.

Build the network with `upsampling=1` (and `decoder_...` as you like): its logits stay at their stride, and loss and
statistics resize them in registers. At full size both work too. The package itself is not imported.
"""

# SPDX-License-Identifier: Apache-2.0
from typing import Any

import torch
from torch import Tensor, nn

from segfast import ops
from segfast.errors import UserError


class SoftCrossEntropyLoss(nn.Module):
    """`smp.losses.SoftCrossEntropyLoss` without full-size logits; labels keep their dtype.

    The mean divides by all pixels, ignored ones included, as the original's does.

    Args:
        reduction: "mean", "sum" or "none".
        smooth_factor: label smoothing in [0, 1]; None for none.
        ignore_index: label that counts as 0; None for none.
        dim: of the classes; 1.
        align_corners: of the resize.
    """

    def __init__(
        self,
        reduction: str = "mean",
        smooth_factor: float | None = None,
        ignore_index: int | None = -100,
        dim: int = 1,
        *,
        align_corners: bool = False,
    ) -> None:
        """Check the settings."""
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise UserError(
                f"SoftCrossEntropyLoss: reduction is 'mean', 'sum' or 'none', not {reduction!r}"
            )
        if dim != 1:
            raise UserError(f"SoftCrossEntropyLoss: dim is 1, not {dim} (move the classes there)")
        self.reduction = reduction
        self.smooth_factor = smooth_factor
        self.ignore_index = ignore_index
        self.align_corners = align_corners

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        """The loss.

        Args:
            y_pred: (N, C, h, w) logits.
            y_true: (N, H, W) or (N, 1, H, W), integer.

        Returns:
            A scalar; (N, H, W) for reduction "none".
        """
        labels = y_true.squeeze(1) if y_true.dim() == 4 else y_true
        options: dict[str, Any] = {
            "ignore_index": -100 if self.ignore_index is None else self.ignore_index,
            "label_smoothing": self.smooth_factor or 0.0,
            "align_corners": self.align_corners,
        }
        reduction = "none" if self.reduction == "none" else "sum"
        loss = ops.upsample_cross_entropy(y_pred, labels, reduction=reduction, **options)
        assert isinstance(loss, Tensor)
        return loss / max(labels.numel(), 1) if self.reduction == "mean" else loss


def get_stats(
    output: Tensor,
    target: Tensor,
    mode: str = "multiclass",
    ignore_index: int | None = None,
    threshold: None = None,
    num_classes: int | None = None,
    *,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`smp.metrics.get_stats` for classes, on the device: the input of `smp.metrics.iou_score` and its relatives.

    Args:
        output: (N, C, h, w) float logits, or (N, H, W) integer classes.
        target: (N, H, W) or (N, 1, H, W), integer, values in [0, C) or `ignore_index`.
        mode: "multiclass".
        ignore_index: label that leaves all four; None for none.
        threshold: None.
        num_classes: C; needed where `output` holds classes.
        align_corners: of the resize from (h, w) to (H, W).

    Returns:
        tp, fp, fn, tn: (N, C) int64 each, on output's device. Nothing waits for it.

    Raises:
        UserError: another mode, or no `num_classes`.
        LabelError: on the CPU, values out of range; on CUDA `segfast.ops.check_labels()` raises it.
    """
    if mode != "multiclass" or threshold is not None:
        raise UserError(
            f"get_stats: expected mode 'multiclass', got {mode!r} (use smp.metrics.get_stats)"
        )
    labels = target.squeeze(1) if target.dim() == 4 else target
    ignored = -100 if ignore_index is None else ignore_index
    if output.is_floating_point():
        options: dict[str, Any] = {"ignore_index": ignored, "align_corners": align_corners}
        pairs = zip(output.split(1), labels.split(1), strict=True)
        matrices = [ops.upsample_confusion_matrix(o, t, **options) for o, t in pairs]
    elif num_classes is None:
        raise UserError("get_stats: num_classes is missing, classes do not tell how many there are")
    else:
        pairs = zip(output.reshape(labels.shape), labels, strict=True)
        matrices = [ops.confusion_matrix(o, t, num_classes, ignore_index=ignored) for o, t in pairs]
    counts = torch.stack(matrices)
    tp = counts.diagonal(dim1=1, dim2=2)
    fp, fn = counts.sum(1) - tp, counts.sum(2) - tp
    return tp, fp, fn, counts.sum((1, 2)).unsqueeze(1) - tp - fp - fn
