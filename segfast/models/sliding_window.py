"""Sliding-window inference that holds one row of windows, whatever the image's height."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_SIGMAS_PER_WINDOW = 8  # nnU-Net's: a window is eight standard deviations of its Gaussian long


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """Where windows start along one axis; the last one is pulled back to end with the image."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride, length - crop), 0) for i in range(count)]


def slide(
    inputs: Tensor,
    logits_of: Callable[[Tensor], Tensor],
    crop_size: Sequence[int],
    stride: Sequence[int],
    gaussian: bool = False,
) -> Iterator[tuple[int, Tensor]]:
    """Average the logits of overlapping windows, from top to bottom.

    Rows are handed out as soon as no later window touches them, so that those who need classes
    only, or rows one by one, never hold the logits of the whole image.

    Args:
        inputs: (N, C, H, W) images. One smaller than the window is one window as it is.
        logits_of: a window (N, C, h, w) -> its logits (N, K, h, w).
        crop_size: (h, w) of a window.
        stride: (vertical, horizontal) step, at most the window's size.
        gaussian: weigh a window's pixels by a Gaussian around its centre, which hides the seams
            between windows; otherwise they count alike, as in MMSegmentation.

    Yields:
        (top, logits (N, K, rows, W) float32): the rows from `top` on; together the whole height.
    """
    height, width = inputs.shape[2:]
    tops, lefts = (
        window_starts(*axis) for axis in zip((height, width), crop_size, stride, strict=True)
    )
    crop_h, crop_w = min(crop_size[0], height), min(crop_size[1], width)
    row_weight, column_weight = (_weights(n, gaussian, inputs) for n in (crop_h, crop_w))
    # The weight of a pixel is a product, and the windows are a grid: so is the sum of its weights.
    row_total, column_total = (inputs.new_zeros(n, dtype=torch.float32) for n in (height, width))
    for top in tops:
        row_total[top : top + crop_h] += row_weight
    for left in lefts:
        column_total[left : left + crop_w] += column_weight
    sums: Tensor | None = None  # (N, K, crop_h, W): what was said about the rows from `top` on
    for top, next_top in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            logits = logits_of(inputs[:, :, top : top + crop_h, left : left + crop_w])
            if sums is None:
                sums = logits.new_zeros((*logits.shape[:3], width), dtype=torch.float32)
            if gaussian:
                logits = logits * (row_weight[:, None] * column_weight)
            sums[..., left : left + crop_w] += logits
        assert sums is not None
        done = next_top - top
        yield top, sums[:, :, :done] / (row_total[top:next_top, None] * column_total)
        sums = F.pad(sums[:, :, done:], (0, 0, 0, done))


def assemble(rows: Iterator[tuple[int, Tensor]], height: int) -> Tensor:
    """The rows of `slide` as one tensor (N, K, H, W)."""
    whole: Tensor | None = None
    for top, part in rows:
        if whole is None:
            n, channels, _, width = part.shape
            whole = part.new_empty((n, channels, height, width))
        whole[:, :, top : top + part.shape[2]] = part
    assert whole is not None
    return whole


def _weights(length: int, gaussian: bool, like: Tensor) -> Tensor:
    """The factor of a window's pixels along one axis, (length,) float32."""
    if not gaussian:
        return like.new_ones(length, dtype=torch.float32)
    place = torch.arange(length, device=like.device, dtype=torch.float32) - (length - 1) / 2
    return torch.exp(-0.5 * (place * _SIGMAS_PER_WINDOW / length) ** 2)
