"""normalize_pad_stack: bit-identical to the eager chain for every dtype, layout and padding."""

# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from helpers import DEVICES

from segfast.ops import normalize_pad_stack, normalize_pad_stack_reference

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def images(sizes, device="cpu", channels=3, dtype=torch.uint8, layout="planar"):
    result = []
    for h, w in sizes:
        image = torch.randint(0, 255, (h, w, channels), dtype=torch.int32)
        if dtype in (torch.int16, torch.int32, torch.int64):
            image = image * 100 - 9000
        elif dtype == torch.uint16:
            image = image * 257
        elif dtype.is_floating_point:
            image = image / 7
        image = (
            image.to(dtype).to(device).permute(2, 0, 1)
        )  # the transposed view of an (H, W, C) image
        result.append(image if layout == "interleaved" else image.contiguous())
    return result


@pytest.mark.parametrize("device", DEVICES)
def test_golden(device):
    image = torch.tensor([[[10, 20]], [[30, 40]]], dtype=torch.uint8, device=device)
    out = normalize_pad_stack([image], [10.0, 0.0], [5.0, 10.0], size=(2, 3), pad_value=-1.0)
    assert out.tolist() == [[[[0.0, 2.0, -1.0], [-1.0] * 3], [[3.0, 4.0, -1.0], [-1.0] * 3]]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["planar", "interleaved"])
@pytest.mark.parametrize("options", [
    {}, {"size": (40, 61)}, {"size_divisor": 32}, {"pad_value": 7.3}, {"reverse_channels": True},
    {"dtype": torch.bfloat16}, {"dtype": torch.float16, "pad_value": 0.1}, {"memory_format": torch.channels_last},
    {"memory_format": torch.channels_last, "dtype": torch.bfloat16, "reverse_channels": True},
], ids=str)  # fmt: skip
def test_matches_reference(device, layout, options):
    batch = images([(33, 47), (40, 31), (1, 60)], device, layout=layout)
    for statistics in [(MEAN, STD), (None, None), (torch.tensor(MEAN), torch.tensor(STD))]:
        actual = normalize_pad_stack(batch, *statistics, **options)
        expected = normalize_pad_stack_reference(batch, *statistics, **options)
        assert torch.equal(actual, expected)
        assert actual.stride() == expected.stride()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 2, 4, 13, 70])
@pytest.mark.parametrize("dtype", [
    torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
], ids=str)  # fmt: skip
def test_dtypes_and_channels(device, channels, dtype):
    batch = images([(9, 21), (11, 17)], device, channels, dtype, layout="interleaved")
    mean, std = torch.rand(channels) * 50, torch.rand(channels) * 50 + 1
    actual = normalize_pad_stack(batch, mean.tolist(), std.tolist(), size_divisor=4)
    assert torch.equal(actual, normalize_pad_stack_reference(batch, mean, std, size_divisor=4))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["planar", "interleaved"])
@pytest.mark.parametrize(
    "width", [512, 517]
)  # rows of the result start at multiples of 16 bytes, or anywhere
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_crops_start_at_any_address(device, layout, width, memory_format):
    whole = images([(70, width + 3)] * 2, device, layout=layout)
    batch = [image[:, 1:, x:width] for x, image in zip((1, 3), whole, strict=True)]
    options = {"size": (70, width), "dtype": torch.float16, "memory_format": memory_format}
    actual = normalize_pad_stack(batch, MEAN, STD, **options)
    assert torch.equal(actual, normalize_pad_stack_reference(batch, MEAN, STD, **options))


def test_every_half_is_rounded_as_torch_rounds():
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32)
    every_half = bits.to(torch.int16).view(torch.float16)[None, None]
    assert torch.equal(normalize_pad_stack([every_half]).isnan(), every_half.float().isnan()[None])
    finite = every_half.where(every_half.isfinite(), 0)
    assert torch.equal(normalize_pad_stack([finite])[0], finite.float())
    floats = torch.cat(
        [torch.randn(4096) * 10.0**e for e in range(-9, 6)]
        + [torch.tensor([0.0, 65504, 65519.9, 65520, -1e9])]
    )
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(
            normalize_pad_stack([floats[None, None]], dtype=dtype)[0, 0, 0], floats.to(dtype)
        )


@pytest.mark.parametrize("device", DEVICES)
def test_gradient(device):
    batch = [image.float().requires_grad_() for image in images([(5, 7), (6, 4)], device)]
    upstream = torch.randn(2, 3, 8, 8, device=device)
    options = {"size": (8, 8), "reverse_channels": True}
    actual = torch.autograd.grad(normalize_pad_stack(batch, MEAN, STD, **options), batch, upstream)
    expected = torch.autograd.grad(
        normalize_pad_stack_reference(batch, MEAN, STD, **options), batch, upstream
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_degenerate(device):
    empty = torch.zeros(3, 0, 5, dtype=torch.uint8, device=device)
    assert normalize_pad_stack([empty], MEAN, STD).shape == (1, 3, 0, 5)
    padded = normalize_pad_stack([empty], MEAN, STD, size=(2, 6), pad_value=3.0)
    assert (padded == 3.0).all()
    many = images([(4, 4)] * 130, device)  # more than one table of sources
    assert torch.equal(
        normalize_pad_stack(many, MEAN, STD), normalize_pad_stack_reference(many, MEAN, STD)
    )


def test_rejects():
    ok = images([(4, 5), (6, 3)])
    for error, text, call in [
        (ValueError, "empty list", lambda: normalize_pad_stack([])),
        (
            ValueError,
            r"no larger than size \(4, 9\), got \(6, 5\) .*never crops",
            lambda: normalize_pad_stack(ok, size=(4, 9)),
        ),
        (ValueError, "one channel count", lambda: normalize_pad_stack([ok[0], ok[1][:2]])),
        (ValueError, r"images \(C, H, W\)", lambda: normalize_pad_stack([ok[0][0]])),
        (TypeError, "one dtype", lambda: normalize_pad_stack([ok[0], ok[1].float()])),
        (ValueError, "mean and std together", lambda: normalize_pad_stack(ok, MEAN)),
        (ValueError, "std without zeros", lambda: normalize_pad_stack(ok, MEAN, [1.0, 0.0, 1.0])),
        (
            ValueError,
            "mean with 3 values, one per channel, got 2",
            lambda: normalize_pad_stack(ok, MEAN[:2], STD),
        ),
        (TypeError, "got torch.float64", lambda: normalize_pad_stack(ok, dtype=torch.float64)),
        *(
            (ValueError, "two whole numbers", lambda size=size: normalize_pad_stack(ok, size=size))
            for size in [(9,), (9, 9, 9), 9, (9.7, 9.2), ("9", "9"), ()]
        ),
        (ValueError, "size_divisor >= 1, got 0", lambda: normalize_pad_stack(ok, size_divisor=0)),
        (
            TypeError,
            "got torch.bool",
            lambda: normalize_pad_stack([torch.zeros(3, 2, 2, dtype=torch.bool)]),
        ),
    ]:
        with pytest.raises(error, match=text):
            call()


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    batch = [image.float().requires_grad_() for image in images([(5, 7), (6, 4)], device)]
    for args in [(MEAN, STD, [8, 8], 0.0, True, 6, False), ([], [], [8, 9], 1.0, False, 15, True)]:
        torch.library.opcheck(torch.ops.segfast.normalize_pad_stack.default, (batch, *args))


class Normalize(torch.nn.Module):
    def forward(self, image):
        return normalize_pad_stack([image], MEAN, STD)


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_dynamic_sides(strict):
    """No check may bound a dynamic size; the operator checks it when it runs."""
    sides = {1: torch.export.Dim("h"), 2: torch.export.Dim("w")}
    (example, other) = images([(9, 11), (30, 7)])
    program = torch.export.export(Normalize(), (example,), dynamic_shapes=(sides,), strict=strict)
    assert torch.equal(program.module()(other), Normalize()(other))


def test_sizes_of_any_integer_type():
    (image,) = images([(4, 5)])
    expected = normalize_pad_stack([image], size=(6, 8))
    for size in ([6, 8], torch.Size([6, 8]), np.array([6, 8]), (np.int32(6), np.int64(8))):
        assert torch.equal(normalize_pad_stack([image], size=size), expected)
    compiled = torch.compile(
        lambda image: normalize_pad_stack([image], size=(image.shape[1] + 2, 8)), fullgraph=True
    )
    assert torch.equal(compiled(image), expected)


def test_no_forward_derivative():
    (image,) = images([(4, 5)], dtype=torch.float32)
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(lambda x: normalize_pad_stack([x]), (image,), (image,))


def test_compile():
    batch = images([(5, 7), (6, 4)])
    compiled = torch.compile(normalize_pad_stack, fullgraph=True)
    assert torch.equal(
        compiled(batch, MEAN, STD, size_divisor=4),
        normalize_pad_stack(batch, MEAN, STD, size_divisor=4),
    )
