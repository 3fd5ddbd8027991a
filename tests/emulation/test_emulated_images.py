"""The CUDA kernels of normalize_pad_stack and pad_stack, thread for thread on the CPU, against the CPU kernels."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from emulated import both

pytestmark = pytest.mark.slow


FLOAT16, FLOAT32, BFLOAT16 = 5, 6, 15  # torch's numbers of the dtypes
SOURCES = [
    torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
]  # fmt: skip


def image(height, width, channels, dtype, layout):
    """Random values in one of the ways an image may lie in memory."""
    values = (torch.rand(height, width + 1, channels) * 200).to(dtype)
    planes = values.permute(2, 0, 1)
    more = torch.cat([values[:, 1:], values[:, 1:]], 2)
    return {
        "planar": lambda: planes[:, :, 1:].contiguous(),
        "interleaved": lambda: values[:, 1:].contiguous().permute(2, 0, 1),
        "cropped": lambda: planes.contiguous()[:, :, 1:],  # rows start at any address
        "cropped interleaved": lambda: planes[:, :, 1:],
        "every other pixel": lambda: planes.repeat_interleave(2, 2)[:, :, 2::2],
        "first of more channels": lambda: more.permute(2, 0, 1)[:channels],
        "rows": lambda: planes[:, :, 1:].permute(2, 0, 1).contiguous().permute(1, 2, 0),
    }[layout]()


LAYOUTS = [
    "planar", "interleaved", "cropped", "cropped interleaved", "every other pixel",
    "first of more channels", "rows",
]  # fmt: skip


def assert_same(
    emulated, images, size, number=FLOAT32, *, channels_last=False, reverse=False, scale=None
):
    channels = images[0].shape[0]
    mean, std = scale or (
        [100.5 + c for c in range(channels)],
        [50.25 + c / 3 for c in range(channels)],
    )
    args = (images, mean, std, list(size), -0.5, reverse, number, channels_last)
    expected, actual = both("normalize_pad_stack", emulated, *args)
    assert actual.stride() == expected.stride()
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", SOURCES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images(emulated, layout, dtype):
    sizes = [(9, 21), (11, 97), (1, 1), (12, 64)]
    images = [image(*size, 3, dtype, layout) for size in sizes]
    for number in (FLOAT32, FLOAT16, BFLOAT16):
        for channels_last in (False, True):
            assert_same(emulated, images, (12, 104), number, channels_last=channels_last)
    assert_same(emulated, images, (16, 128), reverse=True)
    assert_same(emulated, images, (13, 112), FLOAT16, reverse=True, channels_last=True)
    assert_same(emulated, images, (12, 97), BFLOAT16, reverse=True)  # rows start inside vectors
    assert_same(emulated, images, (13, 99), reverse=True, channels_last=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 2, 4, 13, 32, 70])  # a launch takes 32
def test_channels(emulated, channels, layout):
    images = [image(*size, channels, torch.uint16, layout) for size in [(5, 37), (3, 20)]]
    for channels_last in (False, True):
        assert_same(emulated, images, (5, 40), reverse=True, channels_last=channels_last)
        assert_same(emulated, images, (7, 37), FLOAT16, channels_last=channels_last)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_shared_by_warps(emulated, layout):
    images = [image(3, width, 3, torch.uint8, layout) for width in (1501, 900)]
    for channels_last in (False, True):
        for width in (1504, 1501):
            assert_same(emulated, images, (3, width), FLOAT16, channels_last=channels_last)
    assert_same(emulated, [image(3, 1001, 2, torch.int64, layout)], (3, 1004))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_several_steps(emulated, layout):
    """So many rows that a warp walks each alone."""
    images = [image(68, width, 3, torch.uint8, layout) for width in (261, 130)] * 31
    for channels_last in (False, True):
        for width in (264, 261):
            assert_same(emulated, images, (68, width), channels_last=channels_last)


def test_more_images_than_one_table(emulated):
    images = [image(1 + i % 3, 1 + i, 3, torch.uint8, "cropped") for i in range(130)]
    assert_same(emulated, images, (4, 131))


def test_statistics(emulated):
    """None, and such that the quotient of four multiplications would not be exact."""
    images = [image(8, 33, 2, dtype, "planar") for dtype in (torch.uint8, torch.int64)]
    for scale in [([], []), ([1e-40, 0.0], [1e-3, 3.0]), ([7.0, 0.1], [-3.0, 1e30])]:
        for picture in images:
            assert_same(emulated, [picture], (8, 36), scale=scale)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64], ids=str
)
@pytest.mark.parametrize("width", [301, 320])
def test_maps(emulated, width, dtype):
    def labels(height, columns):
        return torch.randint(0, 100, (height, columns)).to(dtype)

    maps = [
        labels(9, 300),
        labels(17, 5),
        labels(17, 5).t(),
        labels(20, 301)[:, 1:],
        labels(1, 1),
        labels(8, 200)[:, ::2],
        labels(8, 64),
        labels(8, 65)[:, :64],
    ]
    for size in [(20, width), (21, width + 3)]:
        expected, actual = both("pad_stack", emulated, maps, list(size), 77)
        assert torch.equal(actual.long(), expected.long())
    wide = [labels(2, 7001), labels(2, 7001)[:, 1:]]
    expected, actual = both("pad_stack", emulated, wide, [2, 7001], -1 if dtype.is_signed else 255)
    assert torch.equal(actual.long(), expected.long())
    many = [labels(66, 1100), labels(66, 1101)[:, 1:]] * 32  # a warp walks each row alone
    for columns in (1100, 1104):
        expected, actual = both("pad_stack", emulated, many, [66, columns], 7)
        assert torch.equal(actual.long(), expected.long())


@pytest.mark.parametrize("number", [0, 1, 3, 4, 7, 99])
def test_other_output_dtypes_are_refused(emulated, number):
    args = ([torch.zeros(3, 4, 5)], [], [], [8, 9], 0.0, False)
    with pytest.raises(RuntimeError, match="expected dtype float32, float16 or bfloat16"):
        emulated.normalize_pad_stack(*args, number, False)


def test_too_long_sides_are_refused(emulated):
    for size in ([2**28 + 1, 0], [4, 2**28 + 1]):
        with pytest.raises(RuntimeError, match="heights and widths of at most 268435456"):
            emulated.pad_stack([torch.zeros(4, 0, dtype=torch.uint8)], size, 0)
        with pytest.raises(RuntimeError, match="heights and widths of at most 268435456"):
            emulated.normalize_pad_stack(
                [torch.zeros(0, 4, 0)], [], [], size, 0.0, False, FLOAT32, False
            )
