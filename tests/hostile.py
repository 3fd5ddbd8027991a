"""Hostile tensors for the fuzz tests: memory of every kind, dtypes that do not belong, shapes that do not fit."""

# SPDX-License-Identifier: Apache-2.0

import os

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from segfast.errors import LabelError

CASES = int(os.environ.get("SEGFAST_FUZZ_CASES", "150"))
fuzz = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGERS = [torch.uint8, torch.int16, torch.int32, torch.int64]
STRANGE = [
    torch.bool, torch.int8, torch.uint16, torch.uint32, torch.uint64, torch.complex64,
    torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip
KINDS = [
    "dense",
    "cropped",
    "permuted",
    "stepped",
    "expanded",
    "scalar",
    "overlap",
    "strided",
    "folding",
    "offset",
    "unaligned",
]
SPECIAL = [torch.inf, -torch.inf, torch.nan, 3e38, -3e38, 1e-42]


def mostly(good, bad):
    """One of `good`; once in about twenty draws one of `bad`."""
    return st.sampled_from([*good] * (1 + 20 * len(bad) // len(good)) + [*bad])


sizes = mostly(range(1, 10), [0])
sides = mostly(range(1, 26), [0])
rarely = mostly([False], [True])


def attempt(f, *args, **kwargs):
    """The result, or None where the operator refuses; any other error is a failure."""
    try:
        return f(*args, **kwargs)
    except (ValueError, TypeError, LabelError) as error:
        return None if str(error) else pytest.fail("an error without a word")
    except (RuntimeError, OverflowError) as error:  # torch's own: no memory, no such kernel
        if "API call failed" in str(error):  # which says nothing to anybody
            raise
        return None


def filled(shape, dtype, seed=0, most=5):
    """A dense tensor: normal floats, or integers below `most`."""
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point or dtype.is_complex:
        return (torch.randn(shape, generator=generator) * 4).to(dtype)
    return torch.randint(0, most, shape, generator=generator).to(dtype)


def unaligned(tensor):
    """A copy whose elements lie at odd addresses, made by bytes: torch's own `copy_` to such memory may crash."""
    if tensor.numel() == 0 or tensor.dtype.itemsize == 1 or tensor.dtype.is_complex:
        return tensor.clone()
    raw = bytearray(1) + bytearray(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return torch.frombuffer(raw, dtype=tensor.dtype, offset=1).view(tensor.shape)


@st.composite
def memory(draw, shape, dtype, most=5):
    """A tensor of this shape whose memory may be anything a strided tensor's memory can be."""
    seed, kind = draw(st.integers(0, 2**31)), draw(st.sampled_from(KINDS))
    if kind == "cropped":
        return filled([n + 2 for n in shape], dtype, seed, most)[
            tuple(slice(1, 1 + n) for n in shape)
        ]
    if kind == "permuted":
        order = draw(st.permutations(range(len(shape))))
        back = sorted(range(len(order)), key=order.__getitem__)
        return filled([shape[i] for i in order], dtype, seed, most).permute(back)
    if kind == "stepped":
        step = draw(st.integers(2, 4))
        return filled([step * n for n in shape], dtype, seed, most)[
            tuple(slice(None, None, step) for _ in shape)
        ]
    if kind == "expanded" and shape:
        at = draw(st.integers(0, len(shape) - 1))
        return filled([1 if i == at else n for i, n in enumerate(shape)], dtype, seed, most).expand(
            shape
        )
    if kind == "scalar":
        return filled([1] * len(shape), dtype, seed, most).expand(shape)
    if kind == "overlap":  # every stride 1: neighbours share memory
        return filled([sum(shape) + 1], dtype, seed, most).as_strided(shape, [1] * len(shape))
    if kind in ("strided", "folding"):  # strides that no sequence of views gives
        strides = [*draw(st.tuples(*[st.integers(0, 5)] * len(shape)))]
        if (
            kind == "folding" and len(shape) > 1
        ):  # rows that follow each other, whatever lies between
            strides[-2] = shape[-1] * strides[-1]
        last = sum(max(0, n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        offset = draw(st.integers(0, 3))
        return filled([last + 1 + offset], dtype, seed, most).as_strided(shape, strides, offset)
    if kind == "offset":
        count = draw(st.integers(1, 7))
        whole = filled([count + max(1, torch.Size(shape).numel())], dtype, seed, most)
        return whole[count : count + torch.Size(shape).numel()].view(shape)
    dense = filled(list(shape), dtype, seed, most)
    return unaligned(dense) if kind == "unaligned" else dense


@st.composite
def with_special(draw, tensor):
    """Mostly the tensor; sometimes a dense copy with one value that is not finite, or the dtype's extreme."""
    value = draw(st.sampled_from([None] * 6 + SPECIAL))
    if value is None or tensor.numel() == 0 or tensor.dtype not in FLOATS + INTEGERS:
        return tensor
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    if tensor.dtype in INTEGERS:
        info = torch.iinfo(tensor.dtype)
        value = info.max if value > 0 else info.min
    tensor.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = value
    return tensor


@st.composite
def logits_and_target(draw, same_size):
    """Mostly fitting shapes and dtypes; sometimes one that does not fit."""
    n, c, h, w = draw(st.tuples(sizes, sizes, sizes, sizes))
    big = (h, w) if same_size else draw(st.tuples(sides, sides))
    shape, label_shape = [n, c, h, w], [n, *big]
    if (
        same_size and draw(st.integers(0, 4)) == 0
    ):  # (N, C), (C,), or more than two dimensions of pixels
        more = draw(st.lists(sizes, max_size=3))
        shape, label_shape = [n, c, *more], [n, *more]
        if not more and draw(st.booleans()):
            shape, label_shape = [c], []
    if draw(rarely):
        shape = draw(st.lists(sizes, max_size=5))
    if draw(rarely):
        label_shape = draw(st.lists(sizes, max_size=4))
    dtype, label_dtype = draw(mostly(FLOATS, STRANGE)), draw(mostly(INTEGERS, STRANGE))
    logits = draw(with_special(draw(memory(tuple(shape), dtype))))
    classes = max(1, shape[min(1, len(shape) - 1)]) if shape else 1
    most = classes + 1 if draw(rarely) else classes
    target = draw(memory(tuple(label_shape), label_dtype, most))
    return logits, draw(with_special(target)) if draw(rarely) else target
