"""transformers: loss and metrics of SegFormer and its relatives for the Trainer, from logits at the model's stride.

    metrics = SegmentationMetrics(ignore_index=255)
    Trainer(..., compute_loss_func=segmentation_loss, compute_metrics=metrics,
            preprocess_logits_for_metrics=metrics.preprocess_logits)

The model then neither resizes its logits for the loss nor hands them to the metrics. The package is not imported.
"""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segfast import ops
from segfast.errors import UserError
from segfast.models import CrossEntropyLoss

_UNCOUNTED = -100  # what the Trainer leaves out of num_items_in_batch


def segmentation_loss(
    outputs: Any,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
    *,
    ignore_index: int = 255,
) -> Tensor:
    """The loss that `SegformerForSemanticSegmentation` computes from `labels`, without resized logits.

    Args:
        outputs: what the model returned without `labels`: an object or mapping with `logits`, a tuple that starts with
            them, or the logits (N, C, h, w).
        labels: (N, H, W), integer, values in [0, C) or `ignore_index`; 0 and 1 where C is 1.
        num_items_in_batch: what the Trainer passes: labels in all batches whose gradients it accumulates, void
            included. The loss is scaled to this batch's share of them.
        ignore_index: void; for another value than 255 pass `functools.partial(segmentation_loss, ignore_index=...)`.

    Returns:
        A scalar: the mean over labels that are not void (C > 1), or over all (C = 1), as the model's own.
    """
    logits = _logits(outputs)
    if logits.shape[1] == 1:
        loss = CrossEntropyLoss(use_sigmoid=True)(logits, labels, ignore_index=ignore_index)
    else:
        result = ops.upsample_cross_entropy(logits, labels, ignore_index=ignore_index)
        assert isinstance(result, Tensor)
        loss = result
    if num_items_in_batch is None:
        return loss
    return loss * (labels.ne(_UNCOUNTED).sum() / num_items_in_batch)


class SegmentationMetrics:
    """`compute_metrics` and `preprocess_logits_for_metrics` of a Trainer; works with `batch_eval_metrics` too.

    Per image the Trainer keeps three counts a class, not its logits.

    Args:
        ignore_index: label that is left out.
        class_names: adds `iou_<name>` for every class.
        align_corners: of the resize from logits to labels.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        class_names: Sequence[str] | None = None,
        *,
        align_corners: bool = False,
    ) -> None:
        """Start with no counts."""
        self.ignore_index = ignore_index
        self.class_names = class_names
        self.align_corners = align_corners
        self._total: np.ndarray | int = 0

    def preprocess_logits(self, logits: Any, labels: Tensor) -> Tensor:
        """Logits (N, C, h, w) and labels (N, H, W) -> (N, C, 3) int64: right, predicted and labelled pixels.

        On the device, without waiting for it. One image after the other, because the Trainer drops images that a
        sampler repeated.
        """
        options: dict[str, Any] = {
            "ignore_index": self.ignore_index,
            "align_corners": self.align_corners,
        }
        pairs = zip(_logits(logits).split(1), labels.split(1), strict=True)
        counts = torch.stack([ops.upsample_confusion_matrix(x, y, **options) for x, y in pairs])
        return torch.stack([counts.diagonal(dim1=1, dim2=2), counts.sum(1), counts.sum(2)], dim=2)

    def __call__(self, prediction: Any, compute_result: bool = True) -> dict[str, float]:
        """Counts of images -> `mean_iou`, `mean_accuracy` and `overall_accuracy`, fractions over the whole set.

        Args:
            prediction: an `EvalPrediction` whose `predictions` are (N, C, 3).
            compute_result: False, between batches, only adds them up.

        Raises:
            UserError: the predictions are no counts: `preprocess_logits` is not in use.
            LabelError: CUDA kernels met labels out of range.
        """
        counts = np.asarray(torch.as_tensor(prediction.predictions).cpu())
        if counts.ndim != 3 or counts.shape[2] != 3:
            raise UserError(
                f"SegmentationMetrics: expected counts (N, C, 3), got {counts.shape} (give the "
                "Trainer preprocess_logits_for_metrics=metrics.preprocess_logits)"
            )
        total = self._total + counts.sum(0)
        self._total = 0 if compute_result else total
        if not compute_result:
            return {}
        ops.check_labels()
        return self._scores(total.astype(np.float64))

    def _scores(self, total: np.ndarray) -> dict[str, float]:
        right, predicted, labelled = total.T
        with np.errstate(invalid="ignore", divide="ignore"):
            iou, accuracy = right / (predicted + labelled - right), right / labelled
            overall = right.sum() / labelled.sum()
        scores = {
            "mean_iou": _nanmean(iou),
            "mean_accuracy": _nanmean(accuracy),
            "overall_accuracy": float(overall),
        }
        names = self.class_names or []
        return scores | {f"iou_{name}": float(x) for name, x in zip(names, iou, strict=False)}


def _nanmean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def _logits(outputs: Any) -> Tensor:
    """The logits in what a model, or the Trainer, hands over."""
    found = outputs
    if isinstance(outputs, Mapping):
        found = outputs.get("logits")
    elif isinstance(outputs, tuple):
        found = outputs[0]
    elif not isinstance(outputs, Tensor):
        found = getattr(outputs, "logits", None)
    if isinstance(found, Tensor) and found.dim() == 4:
        return found
    raise UserError(
        f"segmentation: expected logits (N, C, h, w) from the model, got {type(outputs).__name__}"
    )
