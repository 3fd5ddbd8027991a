"""A list of images becomes one normalised, padded batch.

Math: `out[n, c, y, x] = (float32(image[n][c, y, x]) - mean[c]) / std[c]` inside the image, `pad_value` right of it and
below it; rounded once, to `dtype`. One pass: each source byte is read once and each output element written once, where
the eager chain makes a float copy, a difference, a quotient, a padded copy and a stack.

Source: MMSegmentation's SegDataPreProcessor (semantics, order of operations).
"""

# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import segfast._native  # noqa: F401  (registers torch.ops.segfast)
from segfast.ops._call import call_checked, refuse_tangents
from segfast.ops._checks import check_class_count, check_sides, two_sides

IMAGE_DTYPES = (
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)
OUTPUT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_NAME = "segfast::normalize_pad_stack"
_LARGEST, _SMALLEST = torch.finfo(torch.float32).max, 2.0**-149  # of float32, subnormals too


def normalize_pad_stack(
    images: Sequence[Tensor],
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
    *,
    size: tuple[int, int] | None = None,
    size_divisor: int = 1,
    pad_value: float = 0.0,
    reverse_channels: bool = False,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Normalise images of different sizes into one batch.

    Args:
        images: N tensors (C, H_i, W_i) of one dtype on one device, usually uint8 (also int8 to int64, uint16, float),
            any strides: the transposed view of an (H, W, C) image is read as it lies.
        mean: C numbers in the output's channel order, or None together with `std` for a bare conversion.
        std: C numbers, not 0.
        size: (H, W) to pad up to; it never crops.
        size_divisor: without `size`, the batch maximum rounded up to a multiple of this.
        pad_value: written right of and below each image, in normalised units.
        reverse_channels: output channel c is input channel C - 1 - c (BGR to RGB).
        dtype: float32, float16 or bfloat16.
        memory_format: torch.contiguous_format or torch.channels_last.

    Returns:
        (N, C, H, W) in `dtype`, bit-identical to `(image.float() - mean) / std` padded, stacked and rounded.

    Raises:
        ValueError: no images, differing channel counts or devices, a `size` that is not two whole numbers or smaller
            than an image, mean without std, a std that is 0, a mean, std or pad_value that float32 cannot hold.
        TypeError: a dtype that is not listed above.

    Note:
        One launch on CUDA, no wait for the device. Floating-point images receive gradients.
    """
    height, width = _batch_size(images, size, size_divisor)
    check_sides("normalize_pad_stack", (height, width))
    check_class_count("normalize_pad_stack", images[0].shape[0], "channels")
    means, stds = _per_channel("mean", mean, images[0]), _per_channel("std", std, images[0])
    if bool(means) != bool(stds):
        raise ValueError(
            f"{_NAME}: expected mean and std together, got only {'mean' if means else 'std'}"
        )
    if any(abs(value) < _SMALLEST for value in stds):
        raise ValueError(f"{_NAME}: expected std without zeros, got {stds}")
    if not all(abs(value) <= _LARGEST for value in (*means, *stds)):
        raise ValueError(f"{_NAME}: expected finite float32 mean and std, got {means} and {stds}")
    if _LARGEST < abs(pad_value) < math.inf:
        raise ValueError(f"{_NAME}: expected a pad_value that float32 can hold, got {pad_value}")
    if dtype not in OUTPUT_DTYPES:
        raise TypeError(f"{_NAME}: expected dtype float32, float16 or bfloat16, got {dtype}")
    if memory_format not in (torch.contiguous_format, torch.channels_last):
        raise ValueError(
            f"{_NAME}: expected memory_format contiguous_format or channels_last, got {memory_format}"
        )
    refuse_tangents("normalize_pad_stack", images)
    return call_checked(
        torch.ops.segfast.normalize_pad_stack,
        list(images),
        means,
        stds,
        [height, width],
        float(pad_value),
        reverse_channels,
        _SCALAR_TYPE[dtype],
        memory_format is torch.channels_last,
    )


# torch's ScalarType numbers, which the operator's schema carries as an int.
_SCALAR_TYPE = {torch.float32: 6, torch.float16: 5, torch.bfloat16: 15}
_DTYPE = {number: dtype for dtype, number in _SCALAR_TYPE.items()}


def round_up(value: int, divisor: int) -> int:
    """The smallest multiple of `divisor` that is at least `value`."""
    return -(-value // divisor) * divisor


def _batch_size(
    images: Sequence[Tensor], size: tuple[int, int] | None, size_divisor: int
) -> tuple[int, int]:
    """Check the list and return (H, W) of the batch."""
    if len(images) == 0:
        raise ValueError(f"{_NAME}: expected at least one image, got an empty list")
    first = images[0]
    if first.dtype not in IMAGE_DTYPES:
        raise TypeError(f"{_NAME}: expected integer or floating-point images, got {first.dtype}")
    for i, image in enumerate(images):
        if image.dim() != 3 or image.shape[0] != first.shape[0]:
            raise ValueError(
                f"{_NAME}: expected images (C, H, W) with one channel count, got {tuple(image.shape)} at index {i} "
                f"and {tuple(first.shape)} at index 0"
            )
        if image.dtype != first.dtype:
            raise TypeError(
                f"{_NAME}: expected images of one dtype, got {image.dtype} at index {i} and {first.dtype} at 0"
            )
        if image.device != first.device:
            raise ValueError(
                f"{_NAME}: expected images on {first.device}, got {image.device} at index {i}"
            )
    height, width = max(image.shape[1] for image in images), max(image.shape[2] for image in images)
    if size is None:
        if size_divisor < 1:
            raise ValueError(f"{_NAME}: expected size_divisor >= 1, got {size_divisor}")
        return round_up(height, size_divisor), round_up(width, size_divisor)
    rows, columns = two_sides("normalize_pad_stack", size)
    if height > rows or width > columns:
        raise ValueError(
            f"{_NAME}: expected images no larger than size {(rows, columns)}, got {(height, width)} (hint: padding "
            "never crops; crop or resize in the pipeline, or use size_divisor)"
        )
    return int(rows), int(columns)


def _per_channel(name: str, values: Sequence[float] | Tensor | None, image: Tensor) -> list[float]:
    """Mean or std as C Python floats; an empty list stands for None."""
    if values is None:
        return []
    if isinstance(values, Tensor):
        if values.device.type != "cpu":
            raise ValueError(
                f"{_NAME}: expected {name} as numbers or a CPU tensor (hint: {name}.tolist() once, not per batch)"
            )
        values = values.flatten().tolist()
    channels = image.shape[0]
    floats = [float(value) for value in values]
    if len(floats) == 1:
        floats *= channels
    if len(floats) != channels:
        raise ValueError(
            f"{_NAME}: expected {name} with {channels} values, one per channel, got {len(floats)}"
        )
    return floats


def normalize_pad_stack_reference(
    images: Sequence[Tensor],
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
    *,
    size: tuple[int, int] | None = None,
    size_divisor: int = 1,
    pad_value: float = 0.0,
    reverse_channels: bool = False,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """The eager chain that defines `normalize_pad_stack`."""
    height, width = _batch_size(images, size, size_divisor)
    batch = []
    for image in images:
        x = image.to(torch.float32)
        x = x.flip(0) if reverse_channels else x
        if mean is not None:
            x = (
                x - torch.as_tensor(mean, dtype=torch.float32, device=x.device).view(-1, 1, 1)
            ) / torch.as_tensor(std, dtype=torch.float32, device=x.device).view(-1, 1, 1)
        batch.append(F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1]), value=pad_value))
    return torch.stack(batch).to(dtype).contiguous(memory_format=memory_format)


@torch.library.register_fake("segfast::normalize_pad_stack")
def _fake(images, mean, std, size, pad_value, reverse_channels, dtype, channels_last):
    return torch.empty(
        (len(images), images[0].shape[0], *size),
        dtype=_DTYPE[dtype],
        device=images[0].device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def _setup_context(ctx, inputs, output):
    images, _, ctx.std, _, _, ctx.reverse_channels, _, _ = inputs
    ctx.images = [(image.shape, image.dtype) for image in images]


def _backward(ctx, grad):
    grads: list[Tensor | None] = []
    # Filled on the device: a copy from the host would wait for it.
    std = [grad.new_full((1, 1, 1), value, dtype=torch.float32) for value in ctx.std]
    divisor = torch.cat(std) if std else None
    for n, (shape, dtype) in enumerate(ctx.images):
        if not dtype.is_floating_point:
            grads.append(None)
            continue
        g = grad[n, :, : shape[1], : shape[2]].float()
        if divisor is not None:
            g = g / divisor
        grads.append((g.flip(0) if ctx.reverse_channels else g).to(dtype))
    nothing: list | None = (
        None if ctx.std else []
    )  # torch takes an empty list for a list of tensors, whose gradient is a list
    return grads, nothing, nothing, None, None, None, None, None


torch.library.register_autograd(
    "segfast::normalize_pad_stack", _backward, setup_context=_setup_context
)
