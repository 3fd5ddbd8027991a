"""Checks of a decode head's arguments."""

# SPDX-License-Identifier: Apache-2.0
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from segfast.registry import MODELS

_BINARY_THRESHOLD = 0.3  # MMSegmentation's


def checked_inputs(in_channels: Any, in_index: Any, input_transform: str | None) -> Any:
    """The channels that reach the head, if the three settings agree."""
    if input_transform is None:
        hint = "(set input_transform to 'multiple_select' or 'resize_concat' for several maps)"
        assert isinstance(in_channels, int), f"in_channels should be one int {hint}"
        assert isinstance(in_index, int), f"in_index should be one int {hint}"
        return in_channels
    known = ("resize_concat", "multiple_select")
    assert input_transform in known, f"input_transform is one of {known}, not {input_transform!r}"
    for name, value in (("in_channels", in_channels), ("in_index", in_index)):
        is_list = isinstance(value, (list, tuple))
        assert is_list, f"{name} should be a list for input_transform {input_transform!r}"
    assert len(in_channels) == len(in_index), (
        f"in_channels and in_index should be of one length, got {len(in_channels)} and {len(in_index)}"
    )
    return sum(in_channels) if input_transform == "resize_concat" else in_channels


def checked_outputs(out_channels: int | None, num_classes: int) -> int:
    """`out_channels`, which is `num_classes` unless it is 1."""
    if out_channels is None:
        return num_classes
    if out_channels not in (1, num_classes):
        raise ValueError(
            f"out_channels should be num_classes ({num_classes}), or 1 for two classes told apart by "
            f"a sigmoid; got {out_channels}"
        )
    return out_channels


def checked_threshold(threshold: float | None, out_channels: int) -> float | None:
    """The threshold of a one-channel head."""
    if out_channels != 1 or threshold is not None:
        return threshold
    warnings.warn(
        f"threshold is not given and is {_BINARY_THRESHOLD} for one channel", stacklevel=3
    )
    return _BINARY_THRESHOLD


def build_losses(given: Any) -> nn.Module:
    """One loss, or a ModuleList of them."""
    several = isinstance(given, (list, tuple))
    for cfg in given if several else [given]:
        if not isinstance(cfg, (Mapping, nn.Module)):
            raise TypeError(
                f"loss_decode should be dict(type=...) or a list of them, got {given!r}"
            )
    if not several:
        return MODELS.build(given, path="loss_decode")
    return nn.ModuleList(MODELS.build(cfg, path=f"loss_decode.{i}") for i, cfg in enumerate(given))
