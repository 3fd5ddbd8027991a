"""CrossEntropyLoss beside mmseg's: every row of the mean table, values and gradients within eager's own error."""

# SPDX-License-Identifier: Apache-2.0
import warnings

import pytest
import torch
from helpers import assert_within_budget

from segfast.errors import LabelError, UserError
from segfast.models import CrossEntropyLoss, accuracy, weight_reduce_loss

pytest.importorskip("hypothesis")
losses = pytest.importorskip("mmseg.models.losses", exc_type=ImportError)
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Default ``avg_non_ignore``")
FACTORS = st.lists(st.floats(0.1, 3.0), min_size=6, max_size=6)


@st.composite
def cases(draw, *, sigmoid):
    """Settings, call and inputs of one loss; every label that upstream can take."""
    num_classes = draw(st.integers(1 if sigmoid else 2, 6))
    spatial = draw(st.sampled_from([(), (5, 4), (1, 1), (7, 3)] + ([] if sigmoid else [(6,)])))
    batch = draw(st.integers(1, 4))
    reduction = draw(st.sampled_from(["mean", "mean", "sum", "none"]))
    module = {
        "use_sigmoid": sigmoid,
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        "loss_weight": draw(st.sampled_from([1.0, 0.4])),
        "avg_non_ignore": draw(st.booleans()),
        "class_weight": draw(st.one_of(st.none(), FACTORS)),
    }
    call = {"ignore_index": draw(st.sampled_from([255, -100, 0])), "reduction_override": reduction}
    if reduction != "sum" and draw(st.booleans()):
        call["avg_factor"] = draw(st.floats(0.5, 100.0))
    # Upstream looks every label's class weight up, ignored ones included: those must name a class.
    if module["class_weight"] and not sigmoid:
        call["ignore_index"] = 0
    torch.manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(batch, num_classes, *spatial, dtype=torch.float64) * draw(
        st.sampled_from([0.1, 3.0, 20.0])
    )
    label = torch.randint(0, max(num_classes, 2), (batch, *spatial))
    label[torch.rand(label.shape) < draw(st.sampled_from([0.0, 0.3]))] = call["ignore_index"]
    if draw(st.booleans()):
        call["weight"] = torch.rand(label.shape)
    if module["class_weight"]:
        module["class_weight"] = module["class_weight"][:num_classes]
    return module, call, logits, label


def value_and_gradient(make, module, call, logits, label):
    logits = logits.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = make(**module)(logits, label, **call)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), gradient


def assert_as_upstream(module, call, logits, label):
    logits = logits.float().double()  # numbers that both precisions hold
    truth = value_and_gradient(losses.CrossEntropyLoss, module, call, logits, label)
    eager = value_and_gradient(losses.CrossEntropyLoss, module, call, logits.float(), label)
    ours = value_and_gradient(CrossEntropyLoss, module, call, logits.float(), label)
    for mine, other, exact in zip(ours, eager, truth, strict=True):
        assert mine.shape == exact.shape
        scale = max(1.0, exact.abs().max().item())
        assert_within_budget(mine, other, exact, slack=3e-7 * scale)


@settings(max_examples=300, deadline=None)
@given(cases(sigmoid=False))
def test_softmax_rows(case):
    assert_as_upstream(*case)


@settings(max_examples=300, deadline=None)
@given(cases(sigmoid=True))
def test_sigmoid_rows(case):
    module, call, logits, label = case
    if module["class_weight"] and logits.dim() > 2 and logits.shape[1] > 1:
        module["class_weight"] = None  # upstream weighs columns, see below
    if (label == call["ignore_index"]).all():
        with pytest.raises(RuntimeError) if logits.shape[1] == 1 else warnings.catch_warnings():
            value_and_gradient(losses.CrossEntropyLoss, module, call, logits, label)
        ours = value_and_gradient(CrossEntropyLoss, module, call, logits.float(), label)
        assert not ours[0].any()
        assert not ours[1].any()
        return
    assert_as_upstream(module, call, logits, label)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_targets_of_the_logits_shape(data):
    torch.manual_seed(data.draw(st.integers(0, 2**31)))
    shape = data.draw(st.sampled_from([(4, 3), (2, 3, 4, 5), (2, 2, 1, 1)]))
    target = torch.rand(shape) if data.draw(st.booleans()) else torch.randint(0, 2, shape)
    target[torch.rand(shape) < 0.2] = -1
    module = {
        "use_sigmoid": True,
        "avg_non_ignore": data.draw(st.booleans()),
        "class_weight": data.draw(st.sampled_from([None, [2.0]])),
    }
    call = {"weight": torch.rand(shape)} if data.draw(st.booleans()) else {}
    assert_as_upstream(module, call, torch.randn(shape, dtype=torch.float64), target)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(2, 6), st.integers(0, 2**31))
def test_mask_rows(objects, num_classes, width, seed):
    torch.manual_seed(seed)
    logits = torch.randn(objects, num_classes, 3, width, dtype=torch.float64)
    target = torch.randint(0, 2, (objects, 3, width)).double()
    classes = torch.randint(0, num_classes, (objects,))
    module, call = {"use_mask": True, "loss_weight": 0.5}, {"weight": classes, "ignore_index": None}
    pair = [
        value_and_gradient(make, module, call, logits, target)
        for make in (CrossEntropyLoss, losses.CrossEntropyLoss)
    ]
    torch.testing.assert_close(pair[0], pair[1])
    assert pair[0][0].shape == (1,)
    for bad in ({"ignore_index": 255}, {"avg_factor": 2.0}, {"reduction_override": "sum"}):
        with pytest.raises(AssertionError):
            CrossEntropyLoss(use_mask=True)(logits, target, **{**call, **bad})


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_accuracy_and_weight_reduce_loss(data):
    torch.manual_seed(data.draw(st.integers(0, 2**31)))
    shape = data.draw(st.sampled_from([(5, 3), (2, 4, 3, 3), (1, 2, 5), (0, 3)]))
    pred, target = torch.randn(shape), torch.randint(0, shape[1], (shape[0], *shape[2:]))
    options = {
        "topk": data.draw(st.sampled_from([1, 2, (1, 2)])),
        "ignore_index": data.draw(st.sampled_from([None, 0, 255])),
        "thresh": data.draw(st.sampled_from([None, 0.2])) if len(shape) == 2 else None,
    }
    torch.testing.assert_close(
        accuracy(pred, target, **options), losses.accuracy(pred, target, **options)
    )
    reduction = data.draw(st.sampled_from(["mean", "sum", "none"]))
    weight = data.draw(st.sampled_from([None, torch.rand(shape)]))
    avg_factor = None if reduction == "sum" else data.draw(st.sampled_from([None, 3.0]))
    ours, theirs = (
        f(pred, weight, reduction, avg_factor)
        for f in (weight_reduce_loss, losses.utils.weight_reduce_loss)
    )
    torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_where_ours_differs_on_purpose():
    logits, label = torch.randn(2, 3, 4, 3), torch.randint(0, 3, (2, 4, 3))
    label[0] = 255
    weights = [1.0, 2.0, 3.0]
    # Class weights beside a label that names no class: upstream's lookup fails.
    with pytest.raises(IndexError):
        losses.CrossEntropyLoss(class_weight=weights)(logits, label, ignore_index=255)
    got = CrossEntropyLoss(class_weight=weights)(logits, label, ignore_index=255)
    want = torch.nn.functional.cross_entropy(logits, label, torch.tensor(weights), ignore_index=255)
    torch.testing.assert_close(got, want)
    # The weights of the positives belong to channels; upstream spreads them over the last axis.
    kept, sigmoid = label[1:], {"use_sigmoid": True, "class_weight": weights}
    theirs = losses.CrossEntropyLoss(**sigmoid)(logits[1:], kept)
    ours = CrossEntropyLoss(**sigmoid)(logits[1:], kept)
    assert not torch.isclose(ours, theirs)
    # A softmax over one channel, and labels no channel stands for, are named.
    with pytest.raises(UserError, match="one channel"):
        CrossEntropyLoss()(logits[:, :1], label)
    with pytest.raises(AssertionError):
        losses.CrossEntropyLoss(use_sigmoid=True)(logits[:, :1], kept)
    with pytest.raises(LabelError):
        CrossEntropyLoss(use_sigmoid=True)(logits[:1, :1], torch.full((1, 4, 3), 2))
    # Half precision: the sum stays in float32.
    loss = CrossEntropyLoss()(logits.half(), label, ignore_index=255)
    assert loss.dtype == torch.float32
    # Pickles are not read.
    with pytest.raises(UserError, match=r"expected a \.npy, \.json or \.yaml"):
        CrossEntropyLoss(class_weight="weights.pkl")
