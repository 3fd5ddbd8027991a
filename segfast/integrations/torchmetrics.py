"""torchmetrics: intersection over union as a Metric, from classes or straight from logits at any stride."""

# SPDX-License-Identifier: Apache-2.0
from typing import Any

import torch
from torch import Tensor

from segfast import ops
from segfast.errors import UserError
from segfast.integrations import missing

try:
    from torchmetrics import Metric
except ImportError as error:
    raise missing("torchmetrics", "torchmetrics", error) from error


class MeanIoU(Metric):
    """Intersection over union of a whole data set, not the mean of images' means.

    `update` adds to one int64 matrix on the device, without waiting for it; processes are summed at the end. Classes
    that are neither labelled nor predicted are NaN and leave the mean.

    Args:
        num_classes: C.
        ignore_index: label that is left out.
        per_class: let `compute` return (C,), not the mean.
        align_corners: of the resize from logits to labels.
        **kwargs: as for every `Metric`.

    Attributes:
        confusion_matrix: (C, C) int64, row = label, column = prediction.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    confusion_matrix: Tensor

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = 255,
        per_class: bool = False,
        *,
        align_corners: bool = False,
        **kwargs: Any,
    ) -> None:
        """Start with no counts."""
        super().__init__(**kwargs)
        if num_classes < 1:
            raise UserError(f"MeanIoU: num_classes is at least 1, not {num_classes}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.per_class = per_class
        self.align_corners = align_corners
        counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion_matrix", default=counts, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            preds: (N, C, h, w) float logits, or integer classes in target's shape.
            target: (N, H, W), integer, values in [0, C) or `ignore_index`.

        Raises:
            UserError: logits for another number of classes.
            LabelError: on the CPU, values out of range; on CUDA `compute` raises it.
        """
        if not preds.is_floating_point():
            ops.confusion_matrix(
                preds,
                target,
                self.num_classes,
                ignore_index=self.ignore_index,
                out=self.confusion_matrix,
            )
            return
        if preds.dim() != 4 or preds.shape[1] != self.num_classes:
            raise UserError(
                f"MeanIoU: expected logits (N, {self.num_classes}, h, w), got {tuple(preds.shape)}"
            )
        ops.upsample_confusion_matrix(
            preds,
            target,
            ignore_index=self.ignore_index,
            align_corners=self.align_corners,
            out=self.confusion_matrix,
        )

    def compute(self) -> Tensor:
        """The mean as a fraction, or (C,) with `per_class`; float64.

        Raises:
            LabelError: CUDA kernels met labels out of range.
        """
        ops.check_labels()
        counts = self.confusion_matrix
        correct = counts.diagonal()
        union = counts.sum(0) + counts.sum(1) - correct
        iou = correct.double() / union.double()
        return iou if self.per_class else iou.nanmean()
