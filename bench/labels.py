"""Label maps to measure with: noise, the worst case of whatever branches, and smooth regions, as in real masks."""

# SPDX-License-Identifier: Apache-2.0

import torch
from torch import Tensor

REGION = 32  # pixels along the side of a smooth map's regions


def label_map(
    kind: str, shape: tuple[int, int, int], num_classes: int, device: str, *, ignored: bool = True
) -> Tensor:
    """Make a label map.

    Args:
        kind: "noise", every pixel drawn for itself, or "smooth", squares of one class.
        shape: (N, H, W).
        num_classes: C <= 255.
        device: where it lies.
        ignored: every ninth row is 255.

    Returns:
        (N, H, W) uint8.
    """
    side = {"noise": 1, "smooth": REGION}[kind]
    coarse = (shape[0], -(-shape[1] // side), -(-shape[2] // side))
    regions = torch.randint(0, num_classes, coarse, dtype=torch.uint8, device=device)
    labels = regions.repeat_interleave(side, 1).repeat_interleave(side, 2)
    labels = labels[:, : shape[1], : shape[2]].contiguous()
    if ignored:
        labels[:, ::9] = 255
    return labels
