"""Hostile arguments drive every operator: strange shapes, strides, dtypes, overlapping views, empty and enormous sizes, values
that are not finite. An operator refuses with an error of its own, or gives what its reference gives."""

# SPDX-License-Identifier: Apache-2.0

import os

import pytest
import torch

from segfast import ops
from segfast.errors import LabelError

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("SEGFAST_FUZZ_CASES", "150"))
fuzz = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
REFUSALS = (ValueError, TypeError, LabelError)

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGERS = [torch.uint8, torch.int16, torch.int32, torch.int64]
STRANGE = [torch.bool, torch.int8, torch.complex64, torch.uint16]
sizes = st.integers(0, 9)


@st.composite
def memory(draw, shape, dtype):
    """A tensor of this shape whose memory may be dense, cropped, permuted, stepped, expanded or overlapping."""
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)

    def fill(*shape):
        if dtype.is_floating_point or dtype.is_complex:
            return (torch.randn(shape, generator=generator) * 4).to(dtype)
        return torch.randint(0, 5, shape, generator=generator).to(dtype)

    kind = draw(st.sampled_from(["dense", "cropped", "permuted", "stepped", "expanded", "overlap"]))
    if kind == "cropped":
        return fill(*(n + 2 for n in shape))[tuple(slice(1, 1 + n) for n in shape)]
    if kind == "permuted":
        order = draw(st.permutations(range(len(shape))))
        return fill(*(shape[i] for i in order)).permute(
            sorted(range(len(order)), key=order.__getitem__)
        )
    if kind == "stepped":
        return fill(*(2 * n for n in shape))[tuple(slice(None, None, 2) for _ in shape)]
    if kind == "expanded" and shape:
        at = draw(st.integers(0, len(shape) - 1))
        return fill(*(1 if i == at else n for i, n in enumerate(shape))).expand(shape)
    if kind == "overlap":  # every stride 1: neighbours share memory
        return fill(sum(shape) + 1).as_strided(shape, [1] * len(shape))
    return fill(*shape)


@st.composite
def logits_and_target(draw, same_size):
    """Mostly fitting shapes and dtypes; sometimes one that does not fit."""
    n, c, h, w = draw(st.tuples(sizes, sizes, sizes, sizes))
    big = (h, w) if same_size else draw(st.tuples(st.integers(0, 25), st.integers(0, 25)))
    shape, label_shape = [n, c, h, w], [n, *big]
    if draw(st.integers(0, 9)) == 0:
        shape = draw(st.lists(sizes, max_size=5))
    if draw(st.integers(0, 9)) == 0:
        label_shape = draw(st.lists(sizes, max_size=4))
    dtype = draw(st.sampled_from(FLOATS * 4 + STRANGE))
    label_dtype = draw(st.sampled_from(INTEGERS * 4 + STRANGE))
    logits = draw(memory(tuple(shape), dtype))
    target = draw(memory(tuple(label_shape), label_dtype))
    special = draw(st.sampled_from([None] * 6 + [torch.inf, -torch.inf, torch.nan, 3e38]))
    if special is not None and dtype in FLOATS and logits.numel():
        logits = logits.clone(memory_format=torch.contiguous_format)
        logits.view(-1)[draw(st.integers(0, logits.numel() - 1))] = special
    return logits, target


def same(actual, expected, dtype):
    """Equal within what the dtype can say; NaN and infinities in the same places."""
    tolerance = {
        torch.float64: 1e-5,  # weights of samples are float32
        torch.float32: 2e-5,
        torch.float16: 1e-2,
        torch.bfloat16: 6e-2,
    }[dtype]
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def attempt(f, *args, **kwargs):
    """The result, or None where the operator refuses; any other error is a failure."""
    try:
        return f(*args, **kwargs)
    except REFUSALS:
        return None
    except RuntimeError as error:  # torch's own: no memory, more elements than it can count
        if "API call failed" in str(error):  # which says nothing to anybody
            raise
        return None


loss_options = st.fixed_dictionaries(
    {
        "reduction": st.sampled_from(["mean", "sum", "none"]),
        "label_smoothing": st.sampled_from([0.0, 0.0, 0.1, 1.0]),
        "ignore_index": st.sampled_from([-100, 0, 1, 255, -(2**62)]),
    }
)


def check_loss(op, reference, logits, target, options):
    loss = attempt(op, logits, target, **options)
    if loss is None:
        return
    assert logits.dtype in FLOATS
    assert target.dtype in INTEGERS
    if logits.dtype != torch.float32 or not (logits.abs() < 1e30).all() or not target.numel():
        return  # where eager's own rounding or 0 * inf differs, other tests say what is right
    same(loss, reference(logits.double(), target, **options), logits.dtype)
    leaf = logits.detach().clone().requires_grad_()
    twin = logits.detach().double().clone().requires_grad_()
    op(leaf, target, **options).sum().backward()
    reference(twin, target, **options).sum().backward()
    if twin.grad.isfinite().all():  # 0 / 0 where all pixels are ignored: ours is 0
        same(leaf.grad, twin.grad, logits.dtype)


@fuzz
@given(logits_and_target(same_size=True), loss_options)
def test_cross_entropy(pair, options):
    check_loss(ops.cross_entropy, ops.cross_entropy_reference, *pair, options)


@fuzz
@given(logits_and_target(same_size=False), loss_options, st.booleans())
def test_upsample_cross_entropy(pair, options, align_corners):
    check_loss(
        ops.upsample_cross_entropy,
        ops.upsample_cross_entropy_reference,
        *pair,
        {**options, "align_corners": align_corners},
    )


@fuzz
@given(
    logits_and_target(same_size=False), st.sampled_from([-100, 0, 255]), st.sampled_from([0, 3, 9])
)
def test_confusion_matrices(pair, ignore_index, num_classes):
    logits, target = pair
    counts = attempt(ops.upsample_confusion_matrix, logits, target, ignore_index=ignore_index)
    if counts is not None:
        valid = target != ignore_index
        assert counts.sum() == valid.sum()
        assert torch.equal(
            counts.sum(1), torch.bincount(target[valid].long(), minlength=len(counts))
        )
    pred = target[torch.arange(len(target)).flip(0)] if target.dim() else target
    counts = attempt(ops.confusion_matrix, pred, target, num_classes, ignore_index=ignore_index)
    if counts is not None:
        expected = ops.confusion_matrix_reference(
            pred, target, num_classes, ignore_index=ignore_index
        )
        assert torch.equal(counts, expected)


@fuzz
@given(logits_and_target(same_size=False), st.tuples(*[st.integers(-1, 30)] * 2), st.booleans())
def test_upsample_argmax(pair, size, align_corners):
    logits, _ = pair
    chosen = attempt(ops.upsample_argmax, logits, size, align_corners=align_corners)
    if chosen is None:
        return
    assert chosen.shape == (logits.shape[0], *size)
    if chosen.numel() and (logits.abs() < 1e30).all():
        full = torch.nn.functional.interpolate(
            logits.double(), size, mode="bilinear", align_corners=align_corners
        )
        best = full.max(1).values - full.gather(1, chosen.long()[:, None])[:, 0]
        assert best.max() <= 1e-5 * (1 + full.abs().max())


@st.composite
def image_lists(draw):
    channels = draw(st.sampled_from([1, 3, 3, 4, 13]))
    dtype = draw(st.sampled_from([torch.uint8, torch.uint8, torch.int16, *FLOATS, torch.bool]))
    images = []
    for _ in range(draw(st.integers(0, 3))):
        shape = [channels, draw(sizes), draw(sizes)]
        if draw(st.integers(0, 9)) == 0:
            shape = draw(st.lists(sizes, max_size=4))
        images.append(draw(memory(tuple(shape), dtype)))
    return images


@fuzz
@given(
    image_lists(),
    st.sampled_from([None, (8, 8), (0, 3), (12, 10), (-1, 4), (2**40, 2**40)]),
    st.sampled_from([1, 1, 4, 0, -3]),
    st.sampled_from([0, 255, 0.5, torch.nan, torch.inf]),
    st.booleans(),
)
def test_normalize_pad_stack(images, size, divisor, pad_value, swap):
    channels = images[0].shape[0] if images and images[0].dim() == 3 else 3
    mean, std = [120.0] * channels, [58.0] * channels
    options = {
        "size": size,
        "size_divisor": divisor,
        "pad_value": pad_value,
        "reverse_channels": swap,
    }
    out = attempt(ops.normalize_pad_stack, images, mean, std, **options)
    if out is not None:
        expected = ops.normalize_pad_stack_reference(images, mean, std, **options)
        torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


@fuzz
@given(image_lists(), st.sampled_from([None, (8, 8), (0, 3), (12, 10), (2**40, 2**40)]))
def test_pad_stack(images, size):
    maps = [image[0] if image.dim() == 3 and image.shape[0] else image for image in images]
    out = attempt(ops.pad_stack, maps, size=size)
    if out is not None:
        assert torch.equal(out, ops.pad_stack_reference(maps, size=size))


@pytest.mark.parametrize("num_classes", [2**24, 2**31, 2**40])
def test_enormous_counts_are_refused(num_classes):
    labels = torch.zeros(1, 2, 2, dtype=torch.uint8)
    with pytest.raises((ValueError, RuntimeError, MemoryError)):
        ops.confusion_matrix(labels, labels, num_classes)
