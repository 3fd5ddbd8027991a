"""A list of label maps becomes one padded batch, in the dtype the masks were stored in.

Source: MMSegmentation's stack_batch (semantics: right and bottom padding).
"""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence

import torch
from torch import Tensor

import segfast._native  # noqa: F401  (registers torch.ops.segfast)
from segfast.ops._call import call_checked
from segfast.ops._checks import check_sides, two_sides
from segfast.ops.normalize_pad_stack import round_up

MAP_DTYPES = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64)
_NAME = "segfast::pad_stack"


def pad_stack(
    maps: Sequence[Tensor],
    *,
    size: tuple[int, int] | None = None,
    size_divisor: int = 1,
    pad_value: int = 255,
) -> Tensor:
    """Pad integer maps of different sizes to one size and stack them.

    Args:
        maps: N tensors (H_i, W_i) or (1, H_i, W_i), one integer dtype, one device, any strides.
        size: (H, W) to pad up to; it never crops.
        size_divisor: without `size`, the batch maximum rounded up to a multiple of this.
        pad_value: written right of and below each map; must fit the dtype.

    Returns:
        (N, H, W), or (N, 1, H, W) for maps (1, H_i, W_i); dtype kept.

    Raises:
        ValueError: no maps, shapes that do not fit, a `size` that is not two whole numbers or smaller than a map, a
            pad_value the dtype cannot hold.
        TypeError: a dtype that is not an integer.

    Note:
        One launch on CUDA, no wait for the device.
    """
    height, width = _batch_size(maps, size, size_divisor)
    check_sides("pad_stack", (height, width))
    info = torch.iinfo(maps[0].dtype)
    if not info.min <= pad_value <= info.max:
        raise ValueError(
            f"{_NAME}: expected pad_value in [{info.min}, {info.max}] for {maps[0].dtype}, got {pad_value}"
        )
    planar = [m.squeeze(0) if m.dim() == 3 else m for m in maps]
    batch = call_checked(torch.ops.segfast.pad_stack, planar, [height, width], pad_value)
    return batch.unsqueeze(1) if maps[0].dim() == 3 else batch


def _batch_size(
    maps: Sequence[Tensor], size: tuple[int, int] | None, size_divisor: int
) -> tuple[int, int]:
    """Check the list and return (H, W) of the batch."""
    if len(maps) == 0:
        raise ValueError(f"{_NAME}: expected at least one map, got an empty list")
    first = maps[0]
    if first.dtype not in MAP_DTYPES:
        raise TypeError(
            f"{_NAME}: expected integer maps, got {first.dtype} (hint: float maps go through normalize_pad_stack)"
        )
    for i, m in enumerate(maps):
        if m.dim() != first.dim() or m.dim() not in (2, 3) or (m.dim() == 3 and m.shape[0] != 1):
            raise ValueError(
                f"{_NAME}: expected maps (H, W) or (1, H, W), got {tuple(m.shape)} at index {i}"
            )
        if m.dtype != first.dtype or m.device != first.device:
            raise ValueError(
                f"{_NAME}: expected maps of one dtype on one device, got {m.dtype} on {m.device} at index {i} and "
                f"{first.dtype} on {first.device} at index 0"
            )
    height, width = max(m.shape[-2] for m in maps), max(m.shape[-1] for m in maps)
    if size is None:
        if size_divisor < 1:
            raise ValueError(f"{_NAME}: expected size_divisor >= 1, got {size_divisor}")
        return round_up(height, size_divisor), round_up(width, size_divisor)
    rows, columns = two_sides("pad_stack", size)
    if height > rows or width > columns:
        raise ValueError(
            f"{_NAME}: expected maps no larger than size {(rows, columns)}, got {(height, width)} "
            "(hint: padding never crops)"
        )
    return int(rows), int(columns)


def pad_stack_reference(
    maps: Sequence[Tensor],
    *,
    size: tuple[int, int] | None = None,
    size_divisor: int = 1,
    pad_value: int = 255,
) -> Tensor:
    """The eager chain that defines `pad_stack`."""
    height, width = _batch_size(maps, size, size_divisor)
    batch = torch.stack([m.new_full((*m.shape[:-2], height, width), pad_value) for m in maps])
    for padded, m in zip(batch, maps, strict=True):
        padded[..., : m.shape[-2], : m.shape[-1]] = m
    return batch


@torch.library.register_fake("segfast::pad_stack")
def _fake(maps, size, pad_value):
    return maps[0].new_empty((len(maps), *size))
