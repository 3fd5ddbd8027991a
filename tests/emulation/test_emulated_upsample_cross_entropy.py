"""The CUDA kernels of upsample_cross_entropy, thread for thread on the CPU, against the CPU kernels."""

# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
from emulated import close, labels
from helpers import LAYOUTS, assert_within_budget, strided

import segfast.ops

pytestmark = pytest.mark.slow

# Scales 1 to 16 and odd ones, both ways; rows of one warp, of several, of two tiles (w > 256), single samples and pixels.
SIZES = [
    ((6, 7), (12, 14)), ((6, 7), (24, 28)), ((6, 7), (48, 56)), ((3, 4), (48, 64)), ((5, 4), (15, 12)), ((9, 11), (9, 11)),
    ((9, 11), (20, 31)), ((13, 10), (37, 43)), ((17, 19), (5, 6)), ((1, 1), (7, 9)), ((1, 6), (9, 13)), ((6, 1), (9, 13)),
    ((7, 7), (1, 1)), ((18, 70), (19, 140)), ((5, 65), (33, 513)), ((3, 300), (5, 600)), ((2, 257), (3, 1025)),
    ((40, 9), (80, 18)), ((9, 33), (17, 257)),
]  # fmt: skip


def loss_and_gradient(ops, logits, target, weight=None, pixel_weight=None, *, reduction=1,
                      smoothing=0.0, align_corners=False, ignore_index=255):  # fmt: skip
    """Loss, statistics, denominator, counts and gradient of one backend, which reads its own statistics."""
    options = (ignore_index, reduction, smoothing)
    args = (logits, target, weight, pixel_weight)
    loss, stats, weight_sum, tally = ops.upsample_cross_entropy(
        *args, *options, True, align_corners
    )
    generator = torch.Generator().manual_seed(1)
    upstream = torch.rand(loss.shape, generator=generator) + 0.5
    grad = ops.upsample_cross_entropy_backward(
        upstream, *args, stats, weight_sum, *options, align_corners
    )
    return loss, stats, weight_sum, tally, grad


def agree(emulated, logits, target, *args, rtol=1e-4, atol=1e-8, **options):
    actual = loss_and_gradient(emulated, logits, target, *args, **options)
    expected = loss_and_gradient(torch.ops.segfast, logits, target, *args, **options)
    close(actual[0], expected[0], atol=2e-6 if actual[0].dim() else 1e-8 * target.numel())
    close(actual[2], expected[2])
    # the CPU saves a maximum and a log-sum, CUDA their sum in base 2
    close(actual[1] * math.log(2), expected[1].sum(0))
    assert (actual[3] - expected[3]).abs().max() <= 1  # a tie may fall to either class
    assert actual[4].stride() == expected[4].stride()
    grad, wanted = actual[4].float(), expected[4].float()
    close(grad, wanted, rtol=rtol, atol=atol + 1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(emulated, sizes, align_corners):
    (h, w), (H, W) = sizes
    logits, target = torch.randn(2, 6, h, w) * 3, labels((2, H, W), 6)
    weight, pixel_weight = torch.rand(6), torch.rand(2, H, W)
    agree(emulated, logits, target, align_corners=align_corners)
    agree(emulated, logits, target, weight, pixel_weight, reduction=0, smoothing=0.1,
          align_corners=align_corners)  # fmt: skip
    agree(emulated, logits, target, pixel_weight=pixel_weight, reduction=2,
          align_corners=align_corners)  # fmt: skip


@pytest.mark.parametrize("num_classes", [1, 2, 3, 4, 5, 150, 300])
def test_classes(emulated, num_classes):
    logits = torch.randn(1, num_classes, 3, 40) * 3
    target = labels((1, 12, 160), num_classes, torch.int16)
    atol = 1e-5 if num_classes == 1 else 1e-8  # sums of 16 pixels' rounding errors, nothing else
    agree(emulated, logits, target, ignore_index=-1)
    agree(emulated, logits, target, torch.rand(num_classes), reduction=2, smoothing=0.2,
          ignore_index=-1, atol=atol)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dtypes_and_layouts(emulated, dtype, layout):
    logits = strided(torch.randn(2, 9, 6, 7).to(dtype), layout)
    rtol = 1e-4 if dtype == torch.float32 else 2e-2
    for label_dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        ignore = 255 if label_dtype == torch.uint8 else -1
        target = strided(labels((2, 24, 28), 9, label_dtype)[:, None], layout)[:, 0]
        agree(emulated, logits, target, ignore_index=ignore, rtol=rtol)


@pytest.mark.parametrize("reduction", [0, 1])
@pytest.mark.parametrize("num_classes", [2, 11, 150])
@pytest.mark.parametrize("sizes", [((5, 6), (20, 24)), ((9, 33), (72, 264)), ((13, 10), (37, 43))])
def test_error_budget(emulated, sizes, num_classes, reduction):
    """Loss and gradient err little more than eager's, with exponentials as inexact as the device's."""
    (h, w), size = sizes
    logits = torch.randn(1, num_classes, h, w) * 3
    target = labels((1, *size), num_classes, torch.int16)
    results, upstream = [], torch.ones(()) if reduction else torch.rand(1, *size)
    for dtype in (torch.float32, torch.float64):
        x = logits.to(dtype).requires_grad_()
        loss = segfast.ops.upsample_cross_entropy_reference(
            x, target, ignore_index=-1, reduction="mean" if reduction else "none"
        )
        results.append((loss.detach(), torch.autograd.grad(loss, x, upstream.to(dtype))[0]))
    eager, truth = results
    options = (-1, reduction, 0.0)
    loss, lse2, weight_sum, _ = emulated.upsample_cross_entropy(
        logits, target, None, None, *options, False, False
    )
    grad = emulated.upsample_cross_entropy_backward(
        upstream, logits, target, None, None, lse2, weight_sum, *options, False
    )
    assert_within_budget(loss, eager[0], truth[0], slack=2e-7 * max(1.0, truth[0].max().item()))
    # lse2 is one rounded number: half a unit in the last place of 16 to 32 is 7e-7 of a probability
    assert_within_budget(grad, eager[1], truth[1], slack=8e-7 * truth[1].abs().max().item())


def test_large_and_masked_logits(emulated):
    target = labels((1, 16, 20), 5)
    logits = torch.randn(1, 5, 4, 5)
    for factor in (30.0, 300.0, 3000.0):  # references have to be raised
        agree(emulated, logits * factor, target, reduction=0, rtol=1e-3)
    masked = logits.clone()
    for c in (3, 0):  # classes without a label; references start from class 0
        masked[:, c] = -torch.inf
        target[target == c] = 255
        finite = masked.clamp(min=-1e30)
        for ours, wanted in zip(
            loss_and_gradient(emulated, masked, target),
            loss_and_gradient(emulated, finite, target),
            strict=True,
        ):
            assert torch.equal(ours, wanted)
        agree(emulated, finite, target)
    target[0, 8, 8] = 0
    loss = loss_and_gradient(emulated, masked, target, reduction=0)[0]
    assert loss[0, 8, 8] == torch.inf
    logits[0, 2, 1, 1] = torch.nan
    loss = loss_and_gradient(emulated, logits, target)[0]
    assert torch.isnan(loss)


def test_accuracy_counts_the_first_class_of_a_tie(emulated):
    target = torch.arange(4, dtype=torch.uint8).repeat(1, 8, 2)
    ties = torch.zeros(1, 4, 4, 4)
    tally = emulated.upsample_cross_entropy(ties, target, None, None, 255, 1, 0.0, True, False)[3]
    assert tally.tolist() == [16, 64]  # only class 0
    ties[:, 2:] = 1
    tally = emulated.upsample_cross_entropy(ties, target, None, None, 255, 1, 0.0, True, False)[3]
    assert tally.tolist() == [16, 64]  # only class 2
    logits = torch.randn(2, 7, 9, 40)
    target = labels((2, 36, 160), 7)
    full = torch.nn.functional.interpolate(logits, (36, 160), mode="bilinear")
    correct = ((full.argmax(1) == target) & (target != 255)).sum().item()
    tally = emulated.upsample_cross_entropy(logits, target, None, None, 255, 1, 0.0, True, False)[3]
    assert abs(tally[0].item() - correct) <= 1


def test_all_ignored_and_bad_labels(emulated):
    logits = torch.randn(1, 3, 4, 4)
    ignored = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    loss, _, weight_sum, tally, grad = loss_and_gradient(emulated, logits, ignored)
    assert torch.isnan(loss)
    assert weight_sum == 0
    assert tally.tolist() == [0, 0]
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


def test_batches_and_planes_that_are_too_large_are_refused(emulated):
    """Numbers of patches that overflow 64 bits, and class planes farther apart than offsets reach."""
    one = torch.zeros(1)
    counts, labels_of = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.uint8)
    many = one.expand(2**20, 1, 2**24 - 1, 1), labels_of.expand(2**20, 1, 2**21)
    with pytest.raises(RuntimeError, match="split the batch"):
        emulated.upsample_confusion_matrix_(counts, *many, 255, False)
    wide = torch.empty(1, 2, 27000, 27000, dtype=torch.bfloat16)  # 3 GB of addresses, never touched
    target, float32 = torch.zeros(1, 1, 1, dtype=torch.uint8), torch.zeros(1, 1, 1)
    with pytest.raises(RuntimeError, match="planes that are too large"):
        emulated.upsample_cross_entropy_backward(
            one[0], wide, target, None, None, float32, one[0], 255, 1, 0.0, False
        )
