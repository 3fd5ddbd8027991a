"""Bilinear resize of feature maps and logits."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resize(
    x: Tensor, size: Sequence[int], align_corners: bool = False, mode: str = "bilinear"
) -> Tensor:
    """Resize (N, C, h, w) to `size` (H, W); the same tensor where it has that size already.

    Args:
        x: feature maps or logits.
        size: (H, W).
        align_corners: as in `torch.nn.functional.interpolate`; "nearest" has no such choice.
        mode: of the interpolation.
    """
    height, width = (int(length) for length in size)
    if tuple(x.shape[-2:]) == (height, width):
        return x
    corners = align_corners if mode in ("linear", "bilinear", "bicubic", "trilinear") else None
    return F.interpolate(x, (height, width), mode=mode, align_corners=corners)
