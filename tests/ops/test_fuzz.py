"""Hostile arguments drive every operator: strange shapes, strides, dtypes, overlapping views, empty sizes, values that are
not finite. An operator refuses with an error of its own, or gives what its reference gives. Enormous sizes: test_enormous."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from segfast import ops

pytest.importorskip("hypothesis")
from hostile import (
    FLOATS,
    INTEGERS,
    attempt,
    filled,
    fuzz,
    logits_and_target,
    memory,
    mostly,
    rarely,
    sides,
    sizes,
    with_special,
)
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.slow


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


ignored = mostly([-100, 0, 255, 2**63 - 1, -(2**63)], [2**63])


@st.composite
def loss_arguments(draw, same_size):
    """Logits, target and every option, mostly fitting; whether the factors are such that results can be compared."""
    logits, target = draw(logits_and_target(same_size))
    options = {
        "reduction": draw(mostly(["mean", "sum", "none"], ["max"])),
        "label_smoothing": draw(mostly([0.0, 0.0, 0.1, 1.0], [-0.1, torch.nan])),
        "ignore_index": draw(ignored),
    }
    for name, shape in (("weight", logits.shape[1:2]), ("pixel_weight", target.shape)):
        if draw(st.integers(0, 2)) == 0:
            dtype = draw(
                mostly([torch.float32, torch.float32, torch.float64], [torch.float16, torch.int64])
            )
            if draw(rarely):
                shape = draw(st.lists(sizes, max_size=3))
            factor = draw(with_special(draw(memory(tuple(shape), dtype))))
            if dtype.is_floating_point and draw(rarely):
                factor = factor.clone().requires_grad_()
            options[name] = factor
    return logits, target, options


def tame(t):
    """Whether eager rounds and multiplies zeros as we do: values of ordinary size, or 0."""
    return t is None or bool(((t.abs() < 1e30) & ((t == 0) | (t.abs() > 1e-30))).all())


def used_weight(target, options):
    """The class weights that matter: without smoothing those of the classes that pixels have."""
    weight = options.get("weight")
    if weight is None or options["label_smoothing"] > 0:
        return weight
    label = target.long()
    return weight.detach()[label[label != options["ignore_index"]].unique()]


def check_loss(name, logits, target, options):
    op, reference = getattr(ops, name), getattr(ops, f"{name}_reference")
    loss = attempt(op, logits, target, **options)
    if loss is None:
        return
    assert logits.dtype in FLOATS
    assert target.dtype in INTEGERS
    leaf = logits.detach().requires_grad_()  # as it lies: a clone would have no gaps or overlaps
    ours = op(leaf, target, **options)
    upstream = filled(ours.shape, ours.dtype).expand(ours.shape)
    ours.backward(upstream)
    assert leaf.grad.shape == logits.shape
    rest = {key: value for key, value in options.items() if key != "reduction"}
    terms = getattr(ops, f"{name}_terms")(leaf, target, **rest, with_accuracy=True)
    assert terms.num_correct <= terms.num_valid
    assert terms.num_valid == (target.long() != options["ignore_index"]).sum()
    if logits.dtype not in (torch.float32, torch.float64) or not target.numel():
        return
    factors = [used_weight(target, options), options.get("pixel_weight")]
    if not tame(logits) or not all(map(tame, factors)):
        return  # where eager's own rounding or 0 * inf differs, other tests say what is right
    twin = logits.detach().double().clone().requires_grad_()
    wide = {
        name: f.detach().double()
        for name in ("weight", "pixel_weight")
        if (f := options.get(name)) is not None
    }
    expected = reference(twin, target, **options | wide)
    finite = expected.isfinite()
    if not finite.all():  # a sum of weights that cancels, or nothing that counts
        return
    # Losses and gradients of pixels may cancel, or be 0 for one class: what rounds are the terms of the sum.
    pixels = 1 if options["reduction"] == "mean" else target.numel()
    terms = [
        1 + t.abs().max().double() for t in (upstream, *factors) if t is not None and t.numel()
    ]
    rounding = torch.stack(terms).prod() * pixels / 10
    scale = 1 + expected.detach().abs().max() + rounding
    same(ours / scale, expected / scale, torch.float32)
    expected.backward(upstream.double())
    scale = 1 + twin.grad.abs().max() + rounding
    same(leaf.grad / scale, twin.grad / scale, torch.float32)


@fuzz
@given(loss_arguments(same_size=True))
def test_cross_entropy(arguments):
    check_loss("cross_entropy", *arguments)


@fuzz
@given(loss_arguments(same_size=False), st.booleans())
def test_upsample_cross_entropy(arguments, align_corners):
    logits, target, options = arguments
    options["align_corners"] = align_corners
    check_loss("upsample_cross_entropy", logits, target, options)


class_counts = mostly([9, 10, 40, 999], [0, -1, 1, 3])


@fuzz
@given(logits_and_target(same_size=False), ignored, class_counts, st.booleans(), st.booleans())
def test_confusion_matrices(pair, ignore_index, num_classes, align_corners, into_target):
    logits, target = pair
    counts = attempt(
        ops.upsample_confusion_matrix,
        logits,
        target,
        ignore_index=ignore_index,
        align_corners=align_corners,
    )
    if counts is not None:
        valid = target.long() != ignore_index
        assert counts.sum() == valid.sum()
        per_class = torch.bincount(target[valid].long(), minlength=len(counts))
        assert torch.equal(counts.sum(1), per_class)
    pred = target[torch.arange(len(target)).flip(0)] if target.dim() else target
    options = {"ignore_index": ignore_index}
    counts = attempt(ops.confusion_matrix, pred, target, num_classes, **options)
    if counts is None:
        return
    expected = ops.confusion_matrix_reference(pred, target, num_classes, **options)
    assert torch.equal(counts, expected)
    if into_target and num_classes < 99:  # counts that lie where the labels lie
        storage = torch.zeros(num_classes**2 + target.numel(), dtype=torch.int64)
        labels = storage[: target.numel()].view(target.shape).copy_(target)
        out = storage[: num_classes**2].view(num_classes, num_classes)
        before = out.clone()
        ops.confusion_matrix(labels, labels.clone(), num_classes, **options, out=out)
        twice = ops.confusion_matrix_reference(target, target, num_classes, **options)
        assert torch.equal(out, before + twice)


@fuzz
@given(
    logits_and_target(same_size=False),
    st.one_of([st.tuples(sides, sides)] * 9 + [st.lists(st.integers(-1, 9), max_size=3)]),
    st.booleans(),
    mostly(INTEGERS, [torch.int8, torch.float32]),
)
def test_upsample_argmax(pair, size, align_corners, dtype):
    logits, _ = pair
    options = {"align_corners": align_corners, "dtype": dtype}
    chosen = attempt(ops.upsample_argmax, logits, size, **options)
    if chosen is None:
        return
    assert chosen.shape == (logits.shape[0], *size)
    assert chosen.dtype == dtype
    if chosen.numel() and tame(logits):
        full = torch.nn.functional.interpolate(
            logits.double(), size, mode="bilinear", align_corners=align_corners
        )
        best = full.max(1).values - full.gather(1, chosen.long()[:, None])[:, 0]
        assert best.max() <= 1e-5 * (1 + full.abs().max())
