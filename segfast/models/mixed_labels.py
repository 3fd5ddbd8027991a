"""The losses of images that were blended from two, each with labels of its own.

MixUp leaves a sample's own labels in `gt_sem_seg`, the other image's in `mixed_sem_seg`, and the share of its own in
the metainfo `mix_share`. The loss is `share * loss(own) + (1 - share) * loss(other)`: for cross-entropy, which is
linear in its target, that is exactly the loss of the soft labels, and the fused operators read two maps of one byte
per pixel where soft labels are C floats. For every other loss it is the definition.
"""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

GROUND_TRUTH = ("gt_sem_seg", "gt_edge_map", "gt_depth_map")
SECOND = "mixed_sem_seg"
SHARE = "mix_share"

Losses = tuple[dict[str, Tensor], Tensor]


def over_labels(
    losses_of: Callable[[Tensor], Losses], label: Tensor, data_samples: Sequence[Any]
) -> Losses:
    """Losses and accuracy of labels, and of the second labels where samples carry them.

    Args:
        losses_of: labels (N, H, W) -> losses by name, and the accuracy.
        label: (N, H, W), or soft (N, C, H, W).
        data_samples: one per image.

    Returns:
        What `losses_of` returns, of both labels by their shares.
    """
    own, accuracy = losses_of(label)
    if not data_samples or SECOND not in data_samples[0]:
        return own, accuracy
    share = getattr(data_samples[0], SHARE)
    second = torch.stack([getattr(sample, SECOND).data for sample in data_samples]).squeeze(1)
    other, other_accuracy = losses_of(second)
    losses = {name: share * value + (1 - share) * other[name] for name, value in own.items()}
    return losses, share * accuracy + (1 - share) * other_accuracy
