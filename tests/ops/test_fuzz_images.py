"""Hostile images, maps and lists of tensors for the operators that make batches of them: see test_fuzz."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from segfast import ops
from segfast.ops.pack_tensors import (
    pack_tensors,
    pack_tensors_reference,
    packed_layout,
    packed_layout_reference,
    unpack_tensors,
)

pytest.importorskip("hypothesis")
from hostile import FLOATS, INTEGERS, attempt, fuzz, memory, mostly, rarely, sizes, with_special
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.slow


@st.composite
def image_lists(draw, dtypes):
    channels = draw(mostly([1, 3, 4, 13], [0]))
    dtype = draw(st.sampled_from(dtypes))
    images = []
    for _ in range(draw(mostly([1, 2, 3], [0]))):
        shape = [channels, draw(sizes), draw(st.integers(0, 40))]
        if draw(rarely):
            shape = draw(st.lists(sizes, max_size=4))
        kind = draw(st.sampled_from(dtypes)) if draw(rarely) else dtype
        images.append(draw(with_special(draw(memory(tuple(shape), kind)))))
    return images


batch_sizes = mostly([None, (12, 40), (40, 41)], [(0, 3), (-1, 4), (2**40, 2**40), (2**63, 1)])
divisors = mostly([1, 4], [0, -3, 2**40])
more = mostly([0], [-1, 1])
means = mostly([120.0, 0.0, 1e39], [torch.nan, -torch.inf])
stds = mostly([1.0, 58.0, -2.0, 1e-40, 1e39], [0.0, torch.nan, torch.inf])
IMAGES = (
    [torch.uint8] * 4 + [torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64] + FLOATS
)


@fuzz
@given(
    image_lists(IMAGES * 2 + [torch.bool]),
    st.tuples(means, more),
    st.tuples(stds, more),
    st.fixed_dictionaries(
        {
            "size": batch_sizes,
            "size_divisor": divisors,
            "pad_value": mostly([0, 255, 0.5, torch.nan, torch.inf, 1e300], [10**400]),
            "reverse_channels": st.booleans(),
            "dtype": mostly(
                [torch.float32, torch.float16, torch.bfloat16], [torch.float64, torch.uint8]
            ),
            "memory_format": st.sampled_from([torch.contiguous_format, torch.channels_last]),
        }
    ),
    st.booleans(),
)
def test_normalize_pad_stack(images, mean, std, options, with_gradient):
    channels = images[0].shape[0] if images and images[0].dim() == 3 else 3
    statistics = [[value] * max(0, channels + more) for value, more in (mean, std)]
    if with_gradient:
        images = [i.detach().requires_grad_() if i.is_floating_point() else i for i in images]
    out = attempt(ops.normalize_pad_stack, images, *statistics, **options)
    if out is None:
        return
    expected = ops.normalize_pad_stack_reference(images, *statistics, **options)
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
    assert out.is_contiguous(memory_format=options["memory_format"])
    if out.requires_grad:
        out.float().sum().backward()
        assert all(image.grad.shape == image.shape for image in images)


@fuzz
@given(
    image_lists([*INTEGERS * 3, torch.int8, torch.uint16, torch.float32]),
    batch_sizes,
    divisors,
    mostly([0, 100], [255, -1, 2**15, 2**63 - 1, 2**70, 0.5]),
    st.booleans(),
)
def test_pad_stack(images, size, divisor, pad_value, with_channel):
    maps = images
    if not with_channel:
        maps = [image[0] if image.dim() == 3 and image.shape[0] else image for image in images]
    options = {"size": size, "size_divisor": divisor, "pad_value": pad_value}
    out = attempt(ops.pad_stack, maps, **options)
    if out is not None:
        assert torch.equal(out, ops.pad_stack_reference(maps, **options))


@fuzz
@given(
    st.lists(
        st.lists(st.integers(0, 6), max_size=5).flatmap(
            lambda shape: st.sampled_from([*IMAGES, torch.bool, torch.complex128]).flatmap(
                lambda dtype: memory(tuple(shape), dtype)
            )
        ),
        max_size=5,
    ),
    mostly([0, 1, 300], [-1, -256, -300]),
    mostly([0], [1, 8]),
)
def test_pack_tensors(tensors, more, offset):
    layout = packed_layout(tensors)
    assert layout == packed_layout_reference(tensors)
    buffer = torch.zeros(max(0, layout.num_bytes + more) + offset, dtype=torch.uint8)[offset:]
    attempt(pack_tensors, tensors, buffer)
    if more < 0 or not tensors or offset:  # refused, or a buffer whose views torch would refuse
        return
    twin = torch.zeros_like(buffer)
    pack_tensors_reference(tensors, twin)
    assert torch.equal(buffer, twin)
    for tensor, view in zip(tensors, unpack_tensors(buffer, tensors, layout), strict=True):
        assert torch.equal(view.isnan(), tensor.isnan())
        assert torch.equal(view.nan_to_num(), tensor.nan_to_num())
