"""Bilinear resize of feature maps and logits."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(
    x: Tensor,
    size: Sequence[int],
    align_corners: bool = False,
    mode: str = "bilinear",
    *,
    repeatable: bool = False,
) -> Tensor:
    """Resize (N, C, h, w) to `size` (H, W); the same tensor where it has that size already.

    Args:
        x: feature maps or logits.
        size: (H, W).
        align_corners: as in `torch.nn.functional.interpolate`; "nearest" has no such choice.
        mode: of the interpolation.
        repeatable: give a bilinear resize on CUDA a gradient with the same bits on every run, always
            and not only under `torch.use_deterministic_algorithms(True)`.
    """
    height, width = (int(length) for length in size)
    if tuple(x.shape[-2:]) == (height, width):
        return x
    wanted = repeatable or torch.are_deterministic_algorithms_enabled()
    if wanted and x.is_cuda and x.requires_grad and mode == "bilinear":
        return RepeatableResize.apply(x, height, width, align_corners)
    corners = align_corners if mode in ("linear", "bilinear", "bicubic", "trilinear") else None
    return F.interpolate(x, (height, width), mode=mode, align_corners=corners)


class RepeatableResize(torch.autograd.Function):
    """A bilinear resize whose gradient is two matrix products.

    torch's own gradient adds with atomics on CUDA, in an order that varies from run to run.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
        """(N, C, h, w) -> (N, C, height, width)."""
        ctx.shape, ctx.dtype, ctx.align_corners = x.shape, x.dtype, align_corners
        return F.interpolate(x, (height, width), mode="bilinear", align_corners=align_corners)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """The transposed resize: rows (h, H) @ gradient (H, W) @ columns (W, w)."""
        dtype = grad.dtype if grad.dtype == torch.float64 else torch.float32
        with torch.autocast(grad.device.type, enabled=False):
            grad = grad.to(dtype)
            rows = _shares(ctx.shape[-2], grad.shape[-2], ctx.align_corners, grad)
            columns = _shares(ctx.shape[-1], grad.shape[-1], ctx.align_corners, grad)
            grad = rows @ (grad @ columns.T)
        return grad.to(ctx.dtype), None, None, None


def _shares(length: int, target: int, align_corners: bool, like: Tensor) -> Tensor:
    """(length, target): how much of each sample is in each resized one, as torch resizes."""
    samples = torch.eye(length, dtype=like.dtype, device=like.device).unsqueeze(0)
    return F.interpolate(samples, target, mode="linear", align_corners=align_corners)[0]
