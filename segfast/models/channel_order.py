"""The order of an image's colour channels: where the channels are, what they are, and how RGB becomes BGR."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_CHANNEL_INDEX = {2: 1, 3: 0, 4: 1, 5: 2}


def channel_index(images: Tensor) -> int:
    """The dimension of the channels in (P, C), (C, H, W), (N, C, H, W) or (N, T, C, H, W).

    Raises:
        AssertionError: another rank.
    """
    assert images.ndim in _CHANNEL_INDEX, (
        "expected images (H*W, C), (C, H, W), (N, C, H, W) or (N, T, C, H, W), got "
        f"{tuple(images.shape)}"
    )
    return _CHANNEL_INDEX[images.ndim]


def channel_order(key: str, images: Tensor, sample: Any = None) -> str:
    """The order that a sample's metainfo says a field has, else what its channels suggest.

    Args:
        key: the field. `<key>_color_type` and `<key>_channel_order` are read (`gt_...` for `gt_img`); in a stacked
            sample they are lists, which have to agree.
        images: in one of the shapes of `channel_index`.
        sample: an element with metainfo, or None.

    Returns:
        "single", "RGB", "BGR", or what the metainfo says instead.

    Raises:
        AssertionError: a grey image with several channels, or a stacked sample whose images differ.
    """
    channels = images.shape[channel_index(images)]
    guess = "single" if channels == 1 else "BGR"
    if sample is None:
        return guess
    name = "gt" if key == "gt_img" else key
    colour = _common(sample, f"{name}_color_type")
    if colour == "grayscale":
        assert channels == 1, f"{name}_color_type is grayscale, but {key} has {channels} channels"
        return "single"
    if colour == "unchanged":
        return guess
    return _common(sample, f"{name}_channel_order") or guess


def batch_channel_order(key: str, images: Sequence[Tensor], samples: Sequence) -> str:
    """`channel_order` of a batch.

    Raises:
        AssertionError: the images differ, or there are not as many of them as samples.
    """
    assert len(images) == len(samples), f"got {len(images)} images and {len(samples)} data_samples"
    orders = [channel_order(key, image, s) for image, s in zip(images, samples, strict=True)]
    assert len(set(orders)) == 1, f"expected one channel order for all '{key}', got {orders}"
    return orders[0]


def conversion(order: str, target: str | None) -> tuple[bool, str]:
    """Whether red and blue change places on the way from one order to another, and the order after it.

    Raises:
        ValueError: an order that is none of "RGB", "BGR" and "single".
    """
    if target is None or order.upper() in (target.upper(), "SINGLE"):
        return False, order
    if order.upper() not in ("RGB", "BGR"):
        raise ValueError(f"expected channel order 'RGB', 'BGR' or 'single', got {order!r}")
    return True, target


def swap_red_and_blue(images: Tensor) -> Tensor:
    """Channels 2, 1, 0 of three; 2, 1, 0, 3 of four (alpha).

    Raises:
        ValueError: another number of channels.
    """
    dim = channel_index(images)
    channels = images.shape[dim]
    if channels == 3:
        return images.flip(dim)
    if channels == 4:
        return torch.cat([images.narrow(dim, 0, 3).flip(dim), images.narrow(dim, 3, 1)], dim)
    raise ValueError(
        f"expected 3 or 4 channels to go between RGB and BGR, got {channels} (hint: set "
        "output_channel_order=None, or say in the sample's metainfo which order the image has)"
    )


def _common(sample: Any, name: str) -> Any:
    """A sample's metainfo of that name; of a stacked sample the value that all images share."""
    value = sample.metainfo.get(name)
    if not isinstance(value, list):
        return value
    assert all(v == value[0] for v in value), f"expected one {name} in the batch, got {value}"
    return value[0]
