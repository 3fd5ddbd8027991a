"""Sums over an image's pixels from which the losses of regions (Dice, Tversky) are made."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from segfast.errors import UserError
from segfast.models.image_chunks import over_images
from segfast.models.resize import resize
from segfast.models.valid_labels import valid_pixels


class RegionSums(NamedTuple):
    """Sums over the valid pixels of an image, (N, C) each, with p the probability and t the target.

    `overlap` is the sum of p t, `pred` of p, `pred_square` of p p, `target` of t, `target_square` of t t;
    `is_valid` (N,) says whether the image has a valid pixel, as 1.0 or 0.0.
    """

    overlap: Tensor
    pred: Tensor
    pred_square: Tensor
    target: Tensor
    target_square: Tensor
    is_valid: Tensor

    def of(self, classes: Sequence[int]) -> "RegionSums":
        """The same sums of some classes only."""
        *sums, is_valid = self
        return RegionSums._make([*(pick_classes(x, classes) for x in sums), is_valid])


def counted_classes(num_classes: int, ignored: Sequence[int | None]) -> list[int]:
    """The classes that no ignored label names; the one channel of a binary problem always counts."""
    return [c for c in range(num_classes) if c not in ignored or num_classes == 1]


def pick_classes(values: Tensor, classes: Sequence[int]) -> Tensor:
    """(..., C) -> (..., number of classes); the same tensor if that is all of them."""
    if len(classes) == values.shape[-1]:
        return values
    return torch.stack([values[..., c] for c in classes], -1)


def region_sums(
    logits: Tensor,
    target: Tensor,
    *,
    activation: str | None,
    pixel_weight: Tensor | None = None,
    ignored: Sequence[int | None] = (),
    align_corners: bool = False,
) -> RegionSums:
    """Sum probabilities and targets over every image.

    Args:
        logits: (N, C, h, w), or of another rank with one label per (N, ...); upsampled bilinearly where (h, w) is
            not the target's size. Arithmetic in float32 (float64 for float64).
        target: (N, H, W) integer classes, one channel standing for class 1; or soft targets of the
            logits' rank.
        activation: "softmax", "sigmoid", or None for logits that are probabilities. One channel
            never takes a softmax.
        pixel_weight: factor per pixel, (N, H, W).
        ignored: labels that count nowhere.
        align_corners: of the upsampling.

    Raises:
        LabelError: on the CPU, a label is out of range.

    Note:
        The same bits on every run; at most a few images' probabilities exist at a time.
    """
    logits, target, pixel_weight = _as_images(logits, target, pixel_weight)
    channels = logits.shape[1]
    weight = pixel_weight
    if target.dim() == 3:
        valid = valid_pixels(target, max(channels, 2), *ignored)
        weight = valid.float() if weight is None else weight * valid
    if activation == "softmax" and channels == 1:
        activation = "sigmoid"
    function = partial(_sums, activation=activation, align_corners=align_corners)
    return RegionSums(*over_images(function, logits, [target, weight], target.shape[-2:].numel()))


def _as_images(
    logits: Tensor, target: Tensor, pixel_weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Inputs of any rank as images; those of another rank become one row each."""
    soft = target.dim() == logits.dim()
    if not soft and target.dim() != logits.dim() - 1:
        raise UserError(
            f"expected labels (N, H, W) for logits (N, C, h, w), got {tuple(target.shape)} for "
            f"{tuple(logits.shape)}"
        )
    if logits.dim() == 4:
        return logits, target, pixel_weight
    count, channels = logits.shape[:2]
    flat = logits.reshape(count, channels, 1, -1)
    target = target.reshape(flat.shape if soft else (count, 1, -1))
    return flat, target, None if pixel_weight is None else pixel_weight.reshape(count, 1, -1)


def _sums(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *,
    activation: str | None,
    align_corners: bool,
) -> list[Tensor]:
    """The sums of some images."""
    prob = logits if logits.dtype == torch.float64 else logits.float()
    prob = resize(prob, target.shape[-2:], align_corners, repeatable=True)
    if activation == "softmax":
        prob = prob.softmax(1)
    elif activation == "sigmoid":
        prob = prob.sigmoid()
    over_pixels = (2, 3)
    weight = prob.new_ones(1, *target.shape[-2:]) if weight is None else weight.to(prob.dtype)
    weight = weight.unsqueeze(1)
    weighted = prob * weight
    if target.dim() == 4:
        t = target.to(prob.dtype)
        overlap, t_sum = (weighted * t).sum(over_pixels), (weight * t).sum(over_pixels)
        t_square = (weight * t * t).sum(over_pixels)
    else:
        first = 1 if prob.shape[1] == 1 else 0
        classes = torch.arange(first, first + prob.shape[1], device=prob.device)
        is_class = target.unsqueeze(1) == classes.view(-1, 1, 1)
        overlap = weighted.masked_fill(~is_class, 0).sum(over_pixels)
        t_sum = t_square = (weight * is_class).sum(over_pixels)
    is_valid = (weight > 0).flatten(1).any(1).expand(len(prob)).to(prob.dtype)
    square = (weighted * prob).sum(over_pixels)
    return [overlap, weighted.sum(over_pixels), square, t_sum, t_square, is_valid]
