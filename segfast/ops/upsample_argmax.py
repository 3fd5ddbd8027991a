"""The class of every pixel of bilinearly resized logits, without the resized logits.

Math: `argmax_c interpolate(logits, (H, W), mode="bilinear")[n, c, y, x]`. All classes of a pixel are blended from the
same four samples, compared and forgotten in registers: what is written is one integer per pixel, where the eager chain
writes and reads C numbers.

Source: torch.nn.functional.interpolate and torch.argmax (semantics). The fusion is ours.
"""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import segfast._native  # noqa: F401  (registers torch.ops.segfast)
from segfast.ops._call import call_checked
from segfast.ops._checks import (
    LABEL_DTYPES,
    LONGEST_RESIZED,
    check_classes,
    check_logits,
    check_sides,
)

_NAME = "segfast::upsample_argmax"
# torch's ScalarType numbers, which the operator's schema carries as an int.
_SCALAR_TYPE = {torch.uint8: 0, torch.int16: 2, torch.int32: 3, torch.int64: 4}
_DTYPE = {number: dtype for dtype, number in _SCALAR_TYPE.items()}


def upsample_argmax(
    logits: Tensor,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    dtype: torch.dtype = torch.int64,
) -> Tensor:
    """Decide the class of every pixel of logits resized to `size`.

    Args:
        logits: (N, C, h, w), float32, float64, float16 or bfloat16, any strides.
        size: (H, W), of any ratio to h, w; equal sizes give `logits.argmax(1)`.
        align_corners: as in `torch.nn.functional.interpolate`.
        dtype: uint8 (C <= 256), int16 (C <= 32768), int32 or int64.

    Returns:
        (N, H, W) in `dtype`: the index of the largest blend. The first index wins a tie; NaN counts as the largest, and
        the first NaN wins.

    Raises:
        ValueError: shapes do not fit, or `dtype` cannot name all classes.
        TypeError: a dtype that is not listed above.

    Note:
        Interpolation in float32 (float64 for float64), not rounded to half precision before classes are compared. A
        sample of weight 0 takes no part: a class masked by -inf never wins, where eager's 0 * inf is a NaN that does.
        The same bits on every run. Never waits for the device. No gradient, as `torch.argmax`.

    >>> upsample_argmax(torch.tensor([[[[0.0, 3.0]], [[1.0, 1.0]]]]), (1, 4)).tolist()
    [[[1, 1, 0, 0]]]
    """
    check_logits("upsample_argmax", logits)
    if logits.dim() != 4:
        raise ValueError(f"{_NAME}: expected logits (N, C, h, w), got {tuple(logits.shape)}")
    check_classes("upsample_argmax", logits)
    if not isinstance(size, Sequence) or len(size) != 2 or size[0] < 1 or size[1] < 1:
        raise ValueError(
            f"{_NAME}: expected size (H, W) with H, W >= 1, got {size} (hint: image.shape[-2:])"
        )
    check_sides("upsample_argmax", size, LONGEST_RESIZED)
    if dtype not in LABEL_DTYPES:
        raise TypeError(f"{_NAME}: expected dtype uint8, int16, int32 or int64, got {dtype}")
    most = torch.iinfo(dtype).max + 1
    if logits.shape[1] > most:
        raise ValueError(
            f"{_NAME}: {dtype} names {most} classes, got logits with {logits.shape[1]} (hint: dtype=torch.int32)"
        )
    return call_checked(
        torch.ops.segfast.upsample_argmax,
        logits,
        [size[0], size[1]],
        align_corners,
        _SCALAR_TYPE[dtype],
    )


def upsample_argmax_reference(
    logits: Tensor,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    dtype: torch.dtype = torch.int64,
) -> Tensor:
    """The eager composition that defines `upsample_argmax`: interpolate, argmax."""
    size = (size[0], size[1])
    if logits.shape[2:] != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
    return logits.argmax(1).to(dtype)


@torch.library.register_fake("segfast::upsample_argmax")
def _fake(logits, size, align_corners, dtype):
    return logits.new_empty((logits.shape[0], *size), dtype=_DTYPE[dtype])
