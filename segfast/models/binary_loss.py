"""Sigmoid cross-entropy, one binary problem per channel: plain torch, with MMSegmentation's rules.

Math: element loss = BCE-with-logits(x, t, pos_weight) * weight * valid. Reduction "mean" divides by
avg_factor if given, by the number of valid elements (C per pixel) with avg_non_ignore, else by the
number of all elements.
"""

# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn.functional as F
from torch import Tensor

from segfast import ops
from segfast.models.reductions import weight_reduce_loss


def binary_cross_entropy(
    pred: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    avg_non_ignore: bool = False,
    align_corners: bool = False,
) -> Tensor:
    """Binary cross-entropy of logits.

    Args:
        pred: (N, 1, h, w), (N, C, h, w), (N, C) or any shape that is label's; upsampled bilinearly
            where (h, w) is not the label's size.
        label: (N, H, W) or (N,) integer: the class, or 0/1 when C is 1; or pred's shape, soft or
            multi-label targets.
        weight: per element or, for class labels, per pixel.
        reduction: "mean", "sum" or "none".
        avg_factor: denominator of the mean.
        class_weight: weight of the positives, (C,) or broadcastable to pred.
        ignore_index: label that counts as 0; negative labels do too.
        avg_non_ignore: let the mean divide by valid elements only.
        align_corners: of the upsampling.

    Raises:
        LabelError: on the CPU, a class label outside [0, C), or outside {0, 1} when C is 1.
    """
    pred = upsample_to(pred, label, align_corners)
    if pred.dim() != label.dim():
        check_class_labels(pred, label, ignore_index)
    if pred.size(1) == 1 and label.dim() == pred.dim() - 1:
        pred = pred.squeeze(1)
    if pred.dim() == label.dim():
        target, valid = label, (label >= 0) & (label != ignore_index)
        weight = valid.float() if weight is None else weight * valid
    else:
        target, weight, valid = _expand_onehot_labels(label, weight, pred.shape, ignore_index)
    if reduction == "mean" and avg_factor is None and avg_non_ignore:
        avg_factor = valid.sum()
    if class_weight is not None:
        class_weight = class_weight.to(pred)
        if class_weight.dim() == 1 and pred.dim() > 2 and len(class_weight) == pred.size(1):
            class_weight = class_weight.view(-1, *[1] * (pred.dim() - 2))
    loss = F.binary_cross_entropy_with_logits(
        pred, target.to(pred.dtype), pos_weight=class_weight, reduction="none"
    )
    return weight_reduce_loss(loss, weight, reduction=reduction, avg_factor=avg_factor)


def upsample_to(pred: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    """Bilinear upsampling of (N, C, h, w) to the label's height and width, where they differ."""
    if pred.dim() != 4 or label.dim() < 3 or pred.shape[2:] == label.shape[-2:]:
        return pred
    size = list(label.shape[-2:])
    return F.interpolate(pred, size, mode="bilinear", align_corners=align_corners)


def _expand_onehot_labels(
    labels: Tensor, label_weights: Tensor | None, target_shape: torch.Size, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Class labels (N, ...) -> one-hot, weight and validity, each of `target_shape` (N, C, ...)."""
    in_use = (labels >= 0) & (labels != ignore_index)
    shape = [1, target_shape[1], *[1] * (labels.dim() - 1)]
    classes = torch.arange(target_shape[1], device=labels.device).view(shape)
    onehot = ((labels.unsqueeze(1) == classes) & in_use.unsqueeze(1)).float()
    valid = in_use.unsqueeze(1).expand(target_shape).float()
    weights = valid if label_weights is None else label_weights.unsqueeze(1) * valid
    return onehot, weights, valid


def check_class_labels(pred: Tensor, label: Tensor, ignore_index: int) -> None:
    """Raise on the CPU, and tally on CUDA, class labels that no channel stands for."""
    class_counts(pred, label, ignore_index)


def class_counts(
    pred: Tensor, label: Tensor, ignore_index: int, align_corners: bool = False
) -> tuple[Tensor, Tensor]:
    """Numbers (0-d int64) of pixels with the right class and of valid pixels.

    With one channel the classes are 0 and 1, told apart at logit 0. Labels that are not one class
    per pixel (soft, multi-label) are compared element by element.
    """
    with torch.no_grad():
        pred = upsample_to(pred, label, align_corners)
        if pred.dim() == label.dim():
            valid = (label >= 0) & (label != ignore_index)
            return (((pred > 0) == (label > 0.5)) & valid).sum(), valid.sum()
        best = pred.argmax(1) if pred.size(1) > 1 else (pred.squeeze(1) > 0).to(torch.uint8)
        if label.dtype.is_floating_point:
            valid = (label >= 0) & (label != ignore_index)
            return ((best == (label > 0.5)) & valid).sum(), valid.sum()
        if label.dtype.is_signed:
            label = label.masked_fill(label < 0, ignore_index)
        counts = ops.confusion_matrix(best, label, max(pred.size(1), 2), ignore_index=ignore_index)
        return counts.trace(), counts.sum()
