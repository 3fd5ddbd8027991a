"""Softmax cross-entropy with MMSegmentation's mean rules, on the fused operators; soft labels in plain torch.

Math, with l_p a pixel's cross-entropy (0 where ignored), w its class weight, s_p its own weight:
`sum_p s_p * w[y_p] * l_p / (denominator + eps)`. The denominator of reduction "mean" is

| avg_factor | class_weight | avg_non_ignore | denominator |
|---|---|---|---|
| given | any | any | avg_factor |
| None | None | False (default) | the number of pixels, ignored ones included |
| None | None | True | the number of pixels that are not ignored |
| None | given | False | the sum of w[y_p]; an ignored label that names a class counts too |
| None | given | True | the sum of w[y_p] over pixels that are not ignored |

Soft labels t (one distribution per pixel) follow the same table, with -sum_c w_c t_pc log softmax(x_p)_c for w[y_p] l_p
and sum_c w_c t_pc for w[y_p]; a pixel whose distribution is all 0 is ignored.
"""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from segfast import ops
from segfast.models.reductions import EPS, match_weight, weight_reduce_loss
from segfast.models.resize import resize

Counts = tuple[Tensor | None, Tensor | None]  # correct and valid pixels, 0-d int64


def cross_entropy(
    pred: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    ignore_index: int = -100,
    avg_non_ignore: bool = False,
    *,
    label_smoothing: float = 0.0,
    align_corners: bool = False,
) -> Tensor:
    """Softmax cross-entropy by the table above.

    Args:
        pred: (N, C, h, w), (N, C, L) or (N, C) logits; (h, w) of any ratio to the label's size.
        label: (N, H, W), (N, L) or (N,), integer; or (N, C, H, W), (N, C, L) or (N, C) float, soft.
        weight: factor per pixel (size 1 along dimension 1 broadcasts).
        class_weight: (C,).
        reduction: "mean", "sum" or "none".
        avg_factor: denominator of the mean.
        ignore_index: label that counts as 0.
        avg_non_ignore: let the mean divide by the pixels that are not ignored, not by all.
        label_smoothing: in [0, 1].
        align_corners: of the upsampling.

    Returns:
        A scalar, or one number per pixel for reduction "none". 0 when every pixel is ignored.

    Raises:
        LabelError: on the CPU, a label outside [0, C) that is not `ignore_index`.
    """
    return cross_entropy_and_counts(
        pred,
        label,
        weight,
        class_weight,
        reduction,
        avg_factor,
        ignore_index,
        avg_non_ignore,
        label_smoothing=label_smoothing,
        align_corners=align_corners,
    )[0]


def cross_entropy_and_counts(
    pred: Tensor,
    label: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    ignore_index: int,
    avg_non_ignore: bool,
    *,
    label_smoothing: float = 0.0,
    align_corners: bool = False,
    with_accuracy: bool = False,
) -> tuple[Tensor, Counts]:
    """As `cross_entropy`; `with_accuracy`, also the numbers of right and of valid pixels."""
    if label.is_floating_point():
        rule = (reduction, avg_factor, avg_non_ignore, label_smoothing, align_corners)
        return _soft_cross_entropy(pred, label, weight, class_weight, *rule)
    options: dict[str, Any] = {
        "weight": class_weight,
        "pixel_weight": None if weight is None else match_weight(weight, label),
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
    }
    per_pixel: Callable = ops.cross_entropy
    summed: Callable = ops.cross_entropy_terms
    if pred.dim() == 4 and label.dim() == 3 and pred.shape[2:] != label.shape[1:]:
        per_pixel, summed = ops.upsample_cross_entropy, ops.upsample_cross_entropy_terms
        options["align_corners"] = align_corners
    if reduction == "none":
        loss = per_pixel(pred, label, reduction="none", **options)
        if not with_accuracy:
            return loss, (None, None)
    terms = summed(pred, label, with_accuracy=with_accuracy, **options)
    if reduction == "sum":
        loss = terms.loss_sum
    elif reduction == "mean":
        total = (
            avg_factor
            if avg_factor is not None
            else _denominator(terms, label, class_weight, ignore_index, avg_non_ignore)
        )
        loss = terms.loss_sum / (total + EPS)
    return loss, (terms.num_correct, terms.num_valid)


def _denominator(
    terms: ops.CrossEntropyTerms,
    label: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    avg_non_ignore: bool,
) -> float | Tensor:
    """What the mean divides by where nobody says it; on the device if it depends on the labels."""
    if avg_non_ignore:
        return terms.weight_sum
    if class_weight is None:
        return label.numel()
    if 0 <= ignore_index < len(class_weight):
        return terms.weight_sum + (label == ignore_index).sum() * class_weight[ignore_index]
    return terms.weight_sum


def _soft_cross_entropy(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    avg_non_ignore: bool,
    label_smoothing: float,
    align_corners: bool,
) -> tuple[Tensor, Counts]:
    """Cross-entropy with one distribution per pixel, in float32 (float64 for float64)."""
    assert pred.dim() == target.dim(), (
        f"expected soft labels of the logits' rank, got {tuple(target.shape)} for "
        f"{tuple(pred.shape)} (class indices are integers: label.long())"
    )
    pred = pred if pred.dtype == torch.float64 else pred.float()
    if pred.dim() == 4:
        pred = resize(pred, target.shape[2:], align_corners, repeatable=True)
    assert pred.shape == target.shape, (
        f"expected soft labels {tuple(pred.shape)}, got {tuple(target.shape)}"
    )
    share = target.to(pred.dtype)
    mass = share.sum(1)
    smoothed = share
    if label_smoothing:
        even = label_smoothing / pred.shape[1]
        smoothed = (1 - label_smoothing) * share + even * mass.unsqueeze(1)
    if class_weight is not None:
        factors = class_weight.to(pred.dtype).view(-1, *[1] * (pred.dim() - 2))
        smoothed, share = smoothed * factors, share * factors
    loss = -(smoothed * pred.log_softmax(1)).sum(1)
    valid = mass > 0
    if reduction == "mean" and avg_factor is None:
        avg_factor = share.sum() if class_weight is not None else float(mass.numel())
        if avg_non_ignore and class_weight is None:
            avg_factor = valid.sum()
    weight = None if weight is None else match_weight(weight, mass)
    with torch.no_grad():
        counts = ((pred.argmax(1) == target.argmax(1)) & valid).sum(), valid.sum()
    return weight_reduce_loss(loss, weight, reduction, avg_factor), counts
