"""The CUDA kernels of cross_entropy, thread for thread on the CPU, against the CPU kernels."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from emulated import both, close, labels

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "shape", [(2, 7, 5, 70), (3, 300, 2, 3), (300, 5), (4,), (1, 1, 2, 2), (2, 9, 0, 3)]
)
@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("factors", [False, True])
def test_cross_entropy(emulated, shape, reduction, factors):
    logits = torch.randn(shape) * 3
    num_classes = shape[1] if len(shape) > 1 else shape[0]
    pixels = shape[:1] + shape[2:] if len(shape) > 1 else ()
    target = labels(pixels, min(num_classes, 200))
    weight = torch.rand(num_classes) if factors else None
    pixel_weight = torch.rand(pixels) if factors else None
    smoothing = 0.1 if factors else 0.0
    expected, actual = both(
        "cross_entropy",
        emulated,
        logits,
        target,
        weight,
        pixel_weight,
        255,
        reduction,
        smoothing,
        True,
    )
    close(actual, expected)
    upstream = torch.rand(expected[0].shape)
    args = (
        upstream,
        logits,
        target,
        weight,
        pixel_weight,
        expected[1],
        expected[2],
        255,
        reduction,
        smoothing,
    )
    expected, actual = both("cross_entropy_backward", emulated, *args)
    close(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_and_layouts(emulated, dtype):
    logits = torch.randn(2, 9, 6, 7).to(dtype).contiguous(memory_format=torch.channels_last)
    equal = labels((2, 6, 7), 9, torch.int64)
    expected, actual = both("cross_entropy", emulated, logits, equal, None, None, -1, 1, 0.0, True)
    close(actual, expected)
    cropped = torch.randn(2, 9, 8, 12)[:, :, 1:7, 2:9]
    expected, actual = both(
        "cross_entropy", emulated, cropped, equal, None, None, -1, 0, 0.0, False
    )
    close(actual, expected)
    args = (torch.rand(2, 6, 7), cropped, equal, None, None, expected[1], expected[2], -1, 0, 0.0)
    expected, actual = both("cross_entropy_backward", emulated, *args)
    close(actual, expected)
