"""Sigmoid cross-entropy, one binary problem per channel, with MMSegmentation's rules.

Math: element loss = BCE-with-logits(x, t, pos_weight) * weight * valid. Reduction "mean" divides by
avg_factor if given, by the number of valid elements (C per pixel) with avg_non_ignore, else by the
number of all elements.

One channel x with labels 0 and 1 is a softmax over the two channels (0, x), which the fused operator reads at
the network's stride. Several channels are plain torch.
"""

# SPDX-License-Identifier: Apache-2.0
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segfast import ops
from segfast.errors import UserError
from segfast.models.reductions import EPS, weight_reduce_loss
from segfast.models.resize import resize
from segfast.models.softmax_loss import Counts, cross_entropy_and_counts
from segfast.models.valid_labels import equals


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
        class_weight: weight of the positives: (C,), one number, or any shape that broadcasts to pred's.
        ignore_index: label that counts as 0; negative labels do too.
        avg_non_ignore: let the mean divide by valid elements only.
        align_corners: of the upsampling.

    Raises:
        LabelError: on the CPU, a class label outside [0, C), or outside {0, 1} when C is 1.
        UserError: as many class weights as there are neither channels nor one.
    """
    rule = (reduction, avg_factor, class_weight, ignore_index, avg_non_ignore, align_corners)
    return binary_cross_entropy_and_counts(pred, label, weight, *rule)[0]


def binary_cross_entropy_and_counts(
    pred: Tensor,
    label: Tensor,
    weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int,
    avg_non_ignore: bool,
    align_corners: bool,
    with_accuracy: bool = False,
) -> tuple[Tensor, Counts]:
    """As `binary_cross_entropy`; `with_accuracy`, also the numbers of right and of valid pixels."""
    of_classes = label.dim() == pred.dim() - 1
    one_weight = class_weight is None or class_weight.numel() == 1
    if of_classes and pred.size(1) == 1 and one_weight and not label.is_floating_point():
        rule = (reduction, avg_factor, class_weight, ignore_index, avg_non_ignore)
        return _two_classes(pred, label, weight, *rule, align_corners, with_accuracy)
    pred = upsample_to(pred if pred.dtype == torch.float64 else pred.float(), label, align_corners)
    counts: Counts = (None, None)
    if of_classes or with_accuracy:  # counting also finds labels that no channel stands for
        counts = class_counts(pred, label, ignore_index)
    class_weight = None if class_weight is None else _per_channel(class_weight, pred)
    if of_classes and pred.size(1) == 1:
        pred, of_classes = pred.squeeze(1), False
    if of_classes:
        target, weight, valid = _expand_onehot_labels(label, weight, pred.shape, ignore_index)
    else:
        target, valid = label, (label >= 0) & ~equals(label, ignore_index)
        weight = valid.float() if weight is None else weight * valid
    if reduction == "mean" and avg_factor is None and avg_non_ignore:
        avg_factor = valid.sum()
    loss = F.binary_cross_entropy_with_logits(
        pred, target.to(pred.dtype), pos_weight=class_weight, reduction="none"
    )
    return weight_reduce_loss(loss, weight, reduction=reduction, avg_factor=avg_factor), counts


def _two_classes(
    pred: Tensor,
    label: Tensor,
    weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int,
    avg_non_ignore: bool,
    align_corners: bool,
    with_accuracy: bool,
) -> tuple[Tensor, Counts]:
    """One channel (N, 1, ...) and labels 0, 1 or ignored, through the fused softmax."""
    if label.dtype.is_signed:
        label = label.masked_fill(label < 0, ignore_index)
    if class_weight is not None:
        positive = class_weight.to(pred.device, torch.float32).view(1)
        class_weight = torch.cat([torch.ones_like(positive), positive])
    count = with_accuracy or (reduction == "mean" and avg_factor is None and avg_non_ignore)
    loss, counts = cross_entropy_and_counts(
        torch.cat([torch.zeros_like(pred), pred], 1),
        label,
        weight,
        class_weight,
        "sum" if reduction == "mean" else reduction,
        None,
        ignore_index,
        avg_non_ignore,
        align_corners=align_corners,
        with_accuracy=count,
    )
    if reduction != "mean":
        return loss, counts
    if avg_factor is None and not avg_non_ignore:
        return loss / label.numel(), counts
    total: Any = counts[1] if avg_factor is None else avg_factor
    return loss / (total + EPS), counts


def mask_cross_entropy(
    pred: Tensor,
    target: Tensor,
    label: Tensor,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    class_weight: Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Binary cross-entropy of single objects' masks, each read from its class's channel.

    Args:
        pred: (R, C, H, W) logits of R objects.
        target: (R, H, W), 0 or 1.
        label: (R,) int64, the objects' classes.
        reduction: "mean" only.
        avg_factor: None only.
        class_weight: factor on the loss, broadcast against (R, H, W).
        ignore_index: None only.

    Returns:
        (1,), the mean over all pixels of all objects.
    """
    assert ignore_index is None, "masks of objects have no ignore_index: pass ignore_index=None"
    assert reduction == "mean", f"masks of objects know reduction 'mean', not {reduction!r}"
    assert avg_factor is None, "masks of objects take no avg_factor"
    chosen = pred[torch.arange(len(pred), device=pred.device), label]
    weight = None if class_weight is None else class_weight.to(pred)
    return F.binary_cross_entropy_with_logits(chosen, target.to(pred.dtype), weight).view(1)


def _per_channel(class_weight: Tensor, pred: Tensor) -> Tensor:
    """Weights of the positives, shaped to broadcast against pred without a single channel."""
    class_weight = class_weight.to(pred)
    channels = pred.size(1)
    if class_weight.dim() != 1 or len(class_weight) == 1 or pred.dim() < 2:
        return class_weight
    if len(class_weight) != channels:
        raise UserError(
            f"use_sigmoid: class_weight has {len(class_weight)} values, but the network has "
            f"{channels} output channels (the weight of the positives of each, or one number)"
        )
    return class_weight.view(-1, *[1] * (pred.dim() - 2))


def upsample_to(pred: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    """Bilinear upsampling of (N, C, h, w) to the label's height and width, where they differ."""
    if pred.dim() != 4 or label.dim() < 3 or pred.shape[2:] == label.shape[-2:]:
        return pred
    return resize(pred, label.shape[-2:], align_corners, repeatable=True)


def _expand_onehot_labels(
    labels: Tensor, label_weights: Tensor | None, target_shape: torch.Size, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Class labels (N, ...) -> one-hot, weight and validity, each of `target_shape` (N, C, ...)."""
    in_use = (labels >= 0) & ~equals(labels, ignore_index)
    shape = [1, target_shape[1], *[1] * (labels.dim() - 1)]
    classes = torch.arange(target_shape[1], device=labels.device).view(shape)
    onehot = ((labels.unsqueeze(1) == classes) & in_use.unsqueeze(1)).float()
    valid = in_use.unsqueeze(1).expand(target_shape).float()
    weights = valid if label_weights is None else label_weights.unsqueeze(1) * valid
    return onehot, weights, valid


def class_counts(
    pred: Tensor, label: Tensor, ignore_index: int, align_corners: bool = False
) -> tuple[Tensor, Tensor]:
    """Numbers (0-d int64) of pixels with the right class and of valid pixels.

    With one channel the classes are 0 and 1, told apart at logit 0. Labels that are not one class
    per pixel (soft, multi-label) are compared element by element.
    """
    with torch.no_grad():
        if pred.dim() == 4 and label.dim() == 3 and not label.is_floating_point():
            return _counts_of_resized(pred, label, ignore_index, align_corners)
        pred = upsample_to(pred, label, align_corners)
        if pred.dim() == label.dim():
            valid = (label >= 0) & ~equals(label, ignore_index)
            return (((pred > 0) == (label > 0.5)) & valid).sum(), valid.sum()
        best = pred.argmax(1) if pred.size(1) > 1 else (pred.squeeze(1) > 0).to(torch.uint8)
        if label.dtype.is_floating_point:
            valid = (label >= 0) & ~equals(label, ignore_index)
            return ((best == (label > 0.5)) & valid).sum(), valid.sum()
        if label.dtype.is_signed:
            label = label.masked_fill(label < 0, ignore_index)
        counts = ops.confusion_matrix(best, label, max(pred.size(1), 2), ignore_index=ignore_index)
        return counts.trace(), counts.sum()


def _counts_of_resized(
    pred: Tensor, label: Tensor, ignore_index: int, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """The counts of (N, C, h, w) logits and (N, H, W) labels, without full-size logits."""
    if label.dtype.is_signed:
        label = label.masked_fill(label < 0, ignore_index)
    if pred.size(1) == 1:
        pred = torch.cat([torch.zeros_like(pred), pred], 1)
    counts = ops.upsample_confusion_matrix(
        pred, label, ignore_index=ignore_index, align_corners=align_corners
    )
    return counts.trace(), counts.sum()
