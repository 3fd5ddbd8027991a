"""What a backbone gives and what it says about that, whoever wrote it."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn


def as_feature_maps(features: Any) -> Sequence[Tensor]:
    """The feature maps of a backbone or neck, the finest first.

    Args:
        features: a list or tuple of maps, one map, a mapping of them (torchvision's), or an object
            with `feature_maps` (transformers').
    """
    features = getattr(features, "feature_maps", features)
    if isinstance(features, Tensor):
        return [features]
    return list(features.values()) if isinstance(features, Mapping) else features


def feature_channels(network: nn.Module) -> list[int] | None:
    """The channels of every feature map, where a network tells them.

    Read from `feature_info.channels()` (timm) or `channels` (transformers).
    """
    info = getattr(network, "feature_info", None)
    channels: Any = getattr(info, "channels", None)
    found = channels() if callable(channels) else getattr(network, "channels", None)
    is_list = isinstance(found, (list, tuple)) and all(isinstance(n, int) for n in found)
    return list(found) if is_list else None  # type: ignore[arg-type]
