"""Losses that need full-size probabilities, a few images at a time and never kept for the backward pass."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_CHUNK_ELEMENTS = 1 << 24  # 64 MB of float32: enough for a kernel, little beside a batch of logits


def over_images(
    function: Callable[..., Sequence[Tensor]],
    logits: Tensor,
    maps: Sequence[Tensor | None],
    num_pixels: int,
) -> list[Tensor]:
    """Apply a function to chunks of images and join what it returns.

    Its intermediate tensors live for one chunk at a time: the backward pass computes them again.

    Args:
        function: `f(logits, *maps)` of some images -> tensors with one row per image.
        logits: (N, C, ...).
        maps: more tensors with one row per image, or None.
        num_pixels: pixels per image at which the function computes.

    Returns:
        The function's tensors, N rows each.
    """
    count = max(1, _CHUNK_ELEMENTS // max(1, logits.shape[1] * num_pixels))
    recompute = torch.is_grad_enabled() and logits.requires_grad
    parts = [[None] * len(logits) if m is None else m.split(count) for m in maps]
    results = []
    for chunk, *others in zip(logits.split(count), *parts, strict=False):
        if recompute:
            part = checkpoint(
                function, chunk, *others, use_reentrant=False, preserve_rng_state=False
            )
        else:
            part = function(chunk, *others)
        results.append(part)
    return [torch.cat(rows) for rows in zip(*results, strict=True)]
