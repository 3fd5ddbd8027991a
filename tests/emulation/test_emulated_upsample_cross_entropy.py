"""The CUDA kernels of upsample_cross_entropy, thread for thread on the CPU, against the CPU kernels."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from emulated import both, close, labels

import segfast.ops

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", [
    ((6, 7), (24, 28)), ((6, 7), (48, 56)), ((5, 4), (15, 12)), ((9, 11), (9, 11)), ((9, 11), (20, 31)), ((13, 10), (37, 43)),
    ((17, 19), (5, 6)), ((1, 1), (7, 9)), ((1, 6), (9, 13)), ((6, 1), (9, 13)), ((7, 7), (1, 1)), ((18, 70), (19, 140)),
], ids=str)  # fmt: skip
def test_upsample_cross_entropy(emulated, sizes, align_corners):
    (h, w), (H, W) = sizes
    logits, target = torch.randn(2, 21, h, w) * 3, labels((2, H, W), 21)
    for weight, pixel_weight, reduction, smoothing in [
        (None, None, 1, 0.0), (torch.rand(21), torch.rand(2, H, W), 0, 0.1), (None, None, 2, 0.1)
    ]:  # fmt: skip
        options = (weight, pixel_weight, 255, reduction, smoothing)
        expected, actual = both(
            "upsample_cross_entropy", emulated, logits, target, *options, True, align_corners
        )
        close(actual[:3], expected[:3])
        assert (
            actual[3] - expected[3]
        ).abs().max() <= 1  # a tie may fall to either class in the last bit
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
        expected, actual = both("upsample_cross_entropy_backward", emulated, *args, align_corners)
        close(actual, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_and_layouts(emulated, dtype):
    logits = torch.randn(2, 9, 6, 7).to(dtype).contiguous(memory_format=torch.channels_last)
    target = labels((2, 24, 28), 9, torch.int16)
    expected, actual = both(
        "upsample_cross_entropy", emulated, logits, target, None, None, -1, 1, 0.0, True, False
    )
    close(actual, expected)
    args = (
        torch.tensor(1.0),
        logits,
        target,
        None,
        None,
        expected[1],
        expected[2],
        -1,
        1,
        0.0,
        False,
    )
    expected, actual = both("upsample_cross_entropy_backward", emulated, *args)
    assert actual.stride() == expected.stride()
    close(actual.float(), expected.float(), rtol=2e-2, atol=1e-6)


def test_all_ignored_and_bad_labels(emulated):
    logits = torch.randn(1, 3, 4, 4)
    ignored = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    loss, stats, weight_sum, tally = emulated.upsample_cross_entropy(
        logits, ignored, None, None, 255, 1, 0.0, True, False
    )
    assert torch.isnan(loss)
    assert weight_sum == 0
    assert tally.tolist() == [0, 0]
    grad = emulated.upsample_cross_entropy_backward(
        torch.tensor(1.0), logits, ignored, None, None, stats, weight_sum, 255, 1, 0.0, False
    )
    assert (grad == 0).all()
    anchor = torch.empty(0)
    assert emulated.take_label_faults(anchor).tolist()[0] == 0
    bad = ignored.clone()
    bad[0, 2, 3] = 200
    bad[0, 7, 7] = 9
    emulated.upsample_cross_entropy(logits, bad, None, None, 255, 1, 0.0, True, False)
    count, first = emulated.take_label_faults(anchor).tolist()
    text = segfast.ops._labels._describe(count, first)
    assert "2 label(s) lie outside [0, 3)" in text
    assert "the first is 200 at pixel 19" in text
    assert emulated.take_label_faults(anchor).tolist()[0] == 0
