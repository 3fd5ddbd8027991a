"""The CUDA kernels of normalize_pad_stack and pad_stack, thread for thread on the CPU, against the CPU kernels."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from emulated import both

pytestmark = pytest.mark.slow


FLOAT32 = 6  # torch's number of the dtype


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.int16, torch.uint16, torch.int64, torch.float16, torch.float32],
    ids=str,
)
def test_images(emulated, dtype):
    sizes = [(9, 21), (11, 300), (1, 1)] * 25  # more than one table of sources
    images = [(torch.rand(h, w, 3) * 200).to(dtype).permute(2, 0, 1) for h, w in sizes]
    for mean, std, reverse, channels_last in [
        ([1.5, 2.0, 3.0], [4.0, 5.5, 6.0], True, False),
        ([], [], False, True),
    ]:
        args = (images, mean, std, [12, 310], 0.5, reverse, FLOAT32, channels_last)
        expected, actual = both("normalize_pad_stack", emulated, *args)
        assert torch.equal(actual, expected)
        assert actual.stride() == expected.stride()
    bands = [
        torch.randint(0, 255, (70, 3, 4), dtype=torch.uint8)
    ]  # more channels than one launch takes
    args = (bands, [0.5] * 70, [float(i + 1) for i in range(70)], [3, 4], 0.0, True, FLOAT32, False)
    expected, actual = both("normalize_pad_stack", emulated, *args)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_maps(emulated, dtype):
    maps = [torch.randint(0, 100, (h, w)).to(dtype) for h, w in [(9, 300), (17, 5)]]
    expected, actual = both("pad_stack", emulated, [*maps, maps[0].t()[:20, :3]], [20, 301], 77)
    assert torch.equal(actual, expected)
