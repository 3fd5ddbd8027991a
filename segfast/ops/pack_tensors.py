"""Many CPU tensors in one buffer of bytes, and the same tensors again as views of a copy of it.

A batch of N images and N label maps crosses the bus in one transfer instead of 2N. Each tensor is copied once, in the
order in which it lies in memory: the (C, H, W) view of an (H, W, C) image stays interleaved, and its views of the other
buffer have the strides that `Tensor.to` would give them. Dense tensors are copied in one piece, others row by row.
"""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import segfast._native  # noqa: F401  (registers torch.ops.segfast)

ALIGNMENT = 256  # bytes; as kPackAlignment in csrc/ops/pack_tensors.h
_NAME = "segfast::pack_tensors"


class PackedLayout(NamedTuple):
    """Where tensors lie in a buffer.

    Attributes:
        num_bytes: of the buffer, a multiple of `ALIGNMENT`.
        offsets: of each tensor, in bytes, a multiple of `ALIGNMENT`.
        strides: of each tensor, in elements.
    """

    num_bytes: int
    offsets: list[int]
    strides: list[tuple[int, ...]]


def packed_layout(tensors: Sequence[Tensor]) -> PackedLayout:
    """Lay tensors out one behind the other.

    Args:
        tensors: strided CPU tensors of any shapes, strides and dtypes.
    """
    if not tensors:
        return PackedLayout(0, [], [])
    _check(tensors)
    numbers = iter(torch.ops.segfast.packed_layout(list(tensors)).tolist())
    num_bytes, offsets, strides = next(numbers), [], []
    for tensor in tensors:
        offsets.append(next(numbers))
        strides.append(tuple(next(numbers) for _ in range(tensor.dim())))
    return PackedLayout(num_bytes, offsets, strides)


def pack_tensors(tensors: Sequence[Tensor], buffer: Tensor) -> None:
    """Copy tensors into a buffer as `packed_layout` lays them out.

    Args:
        tensors: strided CPU tensors of any shapes, strides and dtypes.
        buffer: (B,) uint8 on the CPU, contiguous, B >= `packed_layout(tensors).num_bytes`; may be pinned. The gaps
            between tensors, and what lies behind them, keep their bytes.

    Raises:
        TypeError: a tensor is not a strided one on the CPU, or the buffer is not uint8.
        RuntimeError: the buffer is too small.

    Note:
        Runs on torch's threads, without the interpreter lock.
    """
    if not tensors:
        return
    _check(tensors)
    if buffer.dtype != torch.uint8 or buffer.dim() != 1 or not buffer.is_contiguous():
        raise TypeError(
            f"{_NAME}: expected buffer (B,) uint8, contiguous, got {tuple(buffer.shape)} {buffer.dtype}"
        )
    torch.ops.segfast.pack_tensors_(buffer, list(tensors))


def unpack_tensors(buffer: Tensor, like: Sequence[Tensor], layout: PackedLayout) -> list[Tensor]:
    """The packed tensors as views of a copy of the buffer, on whatever device it is.

    Args:
        buffer: (B,) uint8, B >= `layout.num_bytes`, its memory aligned for every dtype.
        like: the tensors that were packed: their shapes and dtypes.
        layout: `packed_layout(like)`.
    """
    whole = buffer[: layout.num_bytes]
    typed = {tensor.dtype: whole.view(tensor.dtype) for tensor in like}
    return [
        typed[t.dtype].as_strided(
            t.shape, strides, typed[t.dtype].storage_offset() + offset // t.element_size()
        )
        for t, offset, strides in zip(like, layout.offsets, layout.strides, strict=True)
    ]


def pack_tensors_reference(tensors: Sequence[Tensor], buffer: Tensor) -> None:
    """The copies that define `pack_tensors`, one at a time."""
    for tensor, view in zip(
        tensors, unpack_tensors(buffer, tensors, packed_layout_reference(tensors)), strict=True
    ):
        view.copy_(tensor)


def packed_layout_reference(tensors: Sequence[Tensor]) -> PackedLayout:
    """The layout in words: torch's own dense strides, and the next aligned offset."""
    offsets, end = [], 0
    for tensor in tensors:
        offsets.append(end)
        end += -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
    strides = [torch.empty_like(tensor, device="meta").stride() for tensor in tensors]
    return PackedLayout(end, offsets, strides)


def _check(tensors: Sequence[Tensor]) -> None:
    for i, tensor in enumerate(tensors):
        if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
            raise TypeError(
                f"{_NAME}: expected strided tensors on the CPU, got {tensor.layout} on {tensor.device} at index {i}"
            )


@torch.library.register_fake("segfast::packed_layout")
def _fake_layout(tensors):
    size = 1 + sum(1 + tensor.dim() for tensor in tensors)
    return torch.empty(size, dtype=torch.int64, device="cpu")


@torch.library.register_fake("segfast::pack_tensors_")
def _fake(buffer, tensors):
    return None
