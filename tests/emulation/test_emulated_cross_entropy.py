"""The CUDA kernels of cross_entropy, thread for thread on the CPU, against the CPU kernels."""

# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
from emulated import both, close, labels

pytestmark = pytest.mark.slow

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ONE_WALK_CLASSES = 640


def factors(num_classes, pixels, weighted, smoothing):
    """Class weights, pixel weights and smoothing; or none of them."""
    if not weighted:
        return None, None, smoothing
    return torch.rand(num_classes), torch.rand(pixels), smoothing


def two_walks(emulated, logits, target, factors, reduction, ignore_index=255, grad_loss=None):
    """Forward and backward on both sides; the emulated backward gets the emulated statistics."""
    weight, pixel_weight, smoothing = factors
    args = (logits, target, weight, pixel_weight)
    options = (ignore_index, reduction, smoothing)
    expected, actual = both("cross_entropy", emulated, *args, *options, True)
    close(actual, expected)
    upstream = torch.rand(expected[0].shape) if grad_loss is None else torch.tensor(grad_loss)
    gradients = [
        op.cross_entropy_backward(upstream, *args, outputs[1], outputs[2], *options)
        for op, outputs in ((torch.ops.segfast, expected), (emulated, actual))
    ]
    close_gradients(gradients[1], gradients[0])
    return expected, gradients[0]


def close_gradients(actual, expected):
    """Equal but for rounding to their dtype: a float32 gradient of either side is a few units of 2^-22 off."""
    assert actual.stride() == expected.stride()
    rtol, least = {
        torch.float32: (2e-5, 1e-9),
        torch.float16: (2e-3, 6e-8),  # a subnormal unit
        torch.bfloat16: (1.6e-2, 1e-9),
    }[expected.dtype]
    scale = expected.abs().nan_to_num().max().item() if expected.numel() else 1.0
    close(actual, expected, rtol=rtol, atol=max(least, max(1e-6, 1e-3 * rtol) * scale))


def check(emulated, logits, target, weighted=False, smoothing=0.0, ignore_index=255):
    """Two walks, and where it is made for them, one walk, for a mean, a sum and no reduction."""
    num_classes = logits.shape[min(1, logits.dim() - 1)]
    chosen = factors(num_classes, target.shape, weighted, smoothing)
    two_walks(emulated, logits, target, chosen, 0, ignore_index)
    for reduction, grad_loss in ((1, 1.0), (2, 0.25)):
        expected, gradient = two_walks(
            emulated, logits, target, chosen, reduction, ignore_index, grad_loss
        )
        if num_classes > ONE_WALK_CLASSES or logits.dtype == torch.float16:
            continue
        weight, pixel_weight, _ = chosen
        actual = emulated.cross_entropy_with_gradient(
            logits, target, weight, pixel_weight, ignore_index, reduction, smoothing, True
        )
        close((actual[0], *actual[2:]), (expected[0], *expected[2:]))
        emulated.scale_gradient_(actual[1], torch.tensor(grad_loss))
        close_gradients(actual[1], gradient)


@pytest.mark.parametrize(
    "shape",
    [
        (
            2,
            7,
            5,
            70,
        ),  # one row of pixels, of whole vectors in half precision only with another class
        (2, 19, 4, 50),  # several tiles, the last one cut
        (3, 300, 2, 4),
        (2, 150, 1, 24),
        (300, 5),  # pixels dense, classes adjacent
        (7, 1000),
        (4,),
        (1, 1, 2, 2),
        (2, 9, 0, 3),
        (2, 6, 2, 3, 4),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_shapes(emulated, shape, weighted):
    logits = torch.randn(shape) * 3
    num_classes = shape[1] if len(shape) > 1 else shape[0]
    pixels = shape[:1] + shape[2:] if len(shape) > 1 else ()
    target = labels(pixels, min(num_classes, 200))
    if len(shape) > 4:
        logits, target = logits.flatten(2), target.flatten(1)
    check(emulated, logits, target, weighted, 0.1 if weighted else 0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_classes", [1, 2, 5, 8, 9, 13, 19, 21, 150, 257, 640, 1000])
def test_planes(emulated, dtype, num_classes):
    logits = (torch.randn(2, num_classes, 3, 24) * 3).to(dtype)  # rows of whole 16 bytes
    check(emulated, logits, labels((2, 3, 24), num_classes, torch.int16), ignore_index=-1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_classes", [1, 2, 5, 9, 13, 16, 19, 20, 64, 150, 640, 1000])
def test_channels_last(emulated, dtype, num_classes):
    logits = (torch.randn(2, num_classes, 3, 15) * 3).to(dtype)
    logits = logits.contiguous(memory_format=torch.channels_last)
    check(emulated, logits, labels((2, 3, 15), num_classes, torch.int32), ignore_index=-1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_classes", [19, 200])
def test_unaligned(emulated, dtype, num_classes):
    target = labels((2, 3, 9), num_classes, torch.int64)
    odd = (torch.randn(2, num_classes, 3, 9) * 3).to(dtype)  # planes of 27 pixels
    check(emulated, odd, target, ignore_index=-1)
    cropped = (torch.randn(2, num_classes, 5, 12) * 3).to(dtype)[:, :, 1:4, 2:11]
    check(emulated, cropped, target, ignore_index=-1)
    shifted = torch.randn(2 * num_classes * 24 + 1).to(dtype)[1:].view(2, num_classes, 3, 8)
    check(emulated, shifted, labels((2, 3, 8), num_classes, torch.int64), ignore_index=-1)
    last = (torch.randn(2, 3, 12, num_classes + 1) * 3).to(dtype)[:, :, 1:10, :-1]
    check(emulated, last.permute(0, 3, 1, 2), target, ignore_index=-1)  # neighbours, with gaps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("num_classes", [3, 40, 500])
def test_smoothing(emulated, dtype, layout, num_classes):
    logits = (torch.randn(2, num_classes, 2, 16) * 3).to(dtype).contiguous(memory_format=layout)
    check(emulated, logits, labels((2, 2, 16), num_classes, torch.int16), True, 0.2, -1)
    check(emulated, logits, labels((2, 2, 16), num_classes, torch.int16), False, 0.2, -1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("num_classes", [5, 40])
def test_special_values(emulated, layout, num_classes):
    logits = torch.randn(1, num_classes, 2, 8) * 3
    logits[:, : num_classes - 2, 0, :4] = -math.inf  # most classes masked
    logits[:, 1:, 0, 4] = torch.finfo(torch.float32).min
    logits[:, :, 1, 0] += 3e4  # the offset must not cost digits
    logits[:, :, 1, 1] = 1.5  # every class ties: the first is the choice
    target = torch.full((1, 2, 8), num_classes - 1, dtype=torch.uint8)
    target[0, 0, 4] = target[0, 1, 1] = 0
    target[0, 1, 2:4] = 255
    logits = logits.contiguous(memory_format=layout)
    check(emulated, logits, target)
    logits[:, 1, 1, 2] = math.nan  # ignored pixels: 0 here, where torch and the CPU kernel have NaN
    logits[:, 0, 1, 3] = math.inf
    outputs = emulated.cross_entropy_with_gradient(logits, target, None, None, 255, 2, 0.0, True)
    assert outputs[1].isfinite().all()
    assert (outputs[1][0, :, 1, 2:4] == 0).all()
    logits[:, 1, 1, 4] = math.nan  # a pixel that counts
    loss, gradient, *_ = emulated.cross_entropy_with_gradient(
        logits, target, None, None, 255, 1, 0.0, True
    )
    assert loss.isnan()
    assert gradient[0, :, 1, 4].isnan().all()
    assert gradient[0, :, 1, 5].isfinite().all()


def test_all_ignored(emulated):
    logits, target = torch.randn(2, 5, 2, 8), torch.full((2, 2, 8), 255, dtype=torch.uint8)
    check(emulated, logits, target)
    args = (logits, target, None, None, 255, 1, 0.0, True)
    loss, gradient, weight_sum, tally = emulated.cross_entropy_with_gradient(*args)
    assert loss.isnan()  # as torch
    assert (gradient == 0).all()
    assert weight_sum == 0
    assert tally.tolist() == [0, 0]


def test_many_tiles(emulated):  # more partial sums than one block adds
    logits, target = torch.randn(1, 2, 1100, 32), labels((1, 1100, 32), 2)
    expected, actual = both(
        "cross_entropy", emulated, logits, target, None, None, 255, 1, 0.0, True
    )
    close(actual[0], expected[0])
    close(actual[3], expected[3])
    strided = labels((1, 2200, 64), 2)[:, ::2, ::2]  # a label map with gaps
    expected, actual = both(
        "cross_entropy", emulated, logits, strided, None, None, 255, 1, 0.0, True
    )
    args = (logits, strided, None, None, 255, 1, 0.0, True)
    close(emulated.cross_entropy_with_gradient(*args)[0], expected[0])


def test_bad_labels_count_once_and_as_ignored(emulated):
    logits, target = torch.randn(1, 3, 2, 8), labels((1, 2, 8), 3)
    target[0, 1, 2] = 7
    emulated.take_label_faults(logits)
    args = (None, None, 255, 1, 0.0, True)
    actual = emulated.cross_entropy_with_gradient(logits, target, *args)
    count, first = emulated.take_label_faults(logits).tolist()
    assert (count, first >> 30) == (1, 10)
    clean = target.where(target < 3, 255)
    expected = emulated.cross_entropy_with_gradient(logits, clean, *args)
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 7, 8, 4099])
def test_scale_gradient(emulated, dtype, count):
    gradient = torch.randn(count).to(dtype)
    scaled = gradient.clone()
    emulated.scale_gradient_(scaled, torch.tensor(1.0))
    assert torch.equal(scaled, gradient)
    emulated.scale_gradient_(scaled, torch.tensor(6.0))
    assert torch.equal(scaled, (gradient.float() * 6).to(dtype))


def test_scale_gradient_takes_any_order_and_no_gaps(emulated):
    gradient = torch.randn(2, 5, 4, 8)
    last = gradient.contiguous(memory_format=torch.channels_last)
    emulated.scale_gradient_(last, torch.tensor(3.0))
    assert torch.equal(last, gradient * 3)
    before = gradient.clone()
    for wrong in (gradient[:, :, :, :4], gradient[:, ::2], gradient[:1].expand(2, 5, 4, 8)):
        with pytest.raises(RuntimeError, match="without gaps"):
            emulated.scale_gradient_(wrong, torch.tensor(3.0))
    assert torch.equal(gradient, before)
    with pytest.raises(RuntimeError, match="floating-point gradient"):
        emulated.scale_gradient_(torch.ones(8, dtype=torch.int32), torch.tensor(3.0))


# As in tests/ops/test_cross_entropy.py: one of logits and gradient folds into one row, the other does not.
@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((1, 3, 4, 4), (0, 2, 4, 1)),
        ((2, 2, 2, 2), (0, 6, 8, 4)),
        ((2, 19, 4, 40), (50, 45, 80, 2)),
        ((2, 5, 4, 8), (0, 20, 8, 1)),
        ((2, 3, 4, 5), (120, 40, 10, 2)),
        ((2, 3, 4, 5), (200, 1, 24, 4)),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_folds_otherwise_than_logits(emulated, shape, strides, dtype):
    size = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    logits = torch.randn(size).to(dtype).as_strided(shape, strides)
    target = labels((shape[0], *shape[2:]), shape[1])
    check(emulated, logits, target)
    args = (logits, target, None, None, 255)
    for reduction in (1, 2):
        _, stats, weight_sum, _ = emulated.cross_entropy(*args, reduction, 0.0, False)
        grad = emulated.cross_entropy_backward(
            torch.ones(()), *args[:4], stats, weight_sum, 255, reduction, 0.0
        )
        leaf = logits.float().contiguous().requires_grad_()
        mean_or_sum = "mean" if reduction == 1 else "sum"
        loss = torch.nn.functional.cross_entropy(
            leaf, target.long(), ignore_index=255, reduction=mean_or_sum
        )
        (expected,) = torch.autograd.grad(loss, leaf)
        close(grad.float(), expected, rtol=2e-2, atol=2e-2 * expected.abs().max().item())


def test_weight_of_an_absent_class_does_not_matter(emulated):
    logits, target = torch.randn(2, 3, 4, 8), torch.randint(1, 3, (2, 4, 8), dtype=torch.uint8)
    for absent in (math.inf, math.nan):
        weight = torch.tensor([absent, 1.0, 2.0])
        args = (logits, target, weight, None, 255, 1, 0.0, True)
        expected = emulated.cross_entropy_with_gradient(
            logits, target, torch.tensor([0.5, 1.0, 2.0]), *args[3:]
        )
        for one, other in zip(emulated.cross_entropy_with_gradient(*args), expected, strict=True):
            assert torch.equal(one, other)
