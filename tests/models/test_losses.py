"""CrossEntropyLoss, every row of its mean rules against an eager twin."""

# SPDX-License-Identifier: Apache-2.0
import itertools
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segfast import models
from segfast.errors import LabelError, UserError
from segfast.models import CrossEntropyLoss

EPS = torch.finfo(torch.float32).eps
CLASS_WEIGHT = [0.5, 2.0, 1.0, 0.25, 3.0]


def make(shape=(2, 5, 6, 7), size=None, ignore=255, dtype=torch.uint8):
    torch.manual_seed(0)
    size = size or (shape[0], *shape[2:])
    label = torch.randint(0, shape[1], size)
    label[torch.rand(size) < 0.3] = ignore
    return torch.randn(shape, requires_grad=True), label.to(dtype)


def twin(
    logits,
    label,
    *,
    reduction="mean",
    class_weight=None,
    weight=None,
    avg_factor=None,
    avg_non_ignore=False,
    ignore=255,
    align_corners=False,
    smoothing=0.0,
):
    """The table of the contract in plain torch."""
    label = label.long()
    if logits.dim() == 4 and logits.shape[2:] != label.shape[1:]:
        logits = F.interpolate(
            logits, label.shape[1:], mode="bilinear", align_corners=align_corners
        )
    factors = None if class_weight is None else torch.tensor(class_weight)
    loss = F.cross_entropy(
        logits,
        label,
        weight=factors,
        reduction="none",
        ignore_index=ignore,
        label_smoothing=smoothing,
    )
    loss = loss if weight is None else loss * weight
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    valid = label != ignore
    if avg_factor is not None:
        denominator = avg_factor
    elif factors is None:
        denominator = valid.sum() if avg_non_ignore else label.numel()
    else:
        counted = valid if avg_non_ignore else (label < len(factors)) & (label >= 0)
        denominator = factors[label[counted]].sum()
    return loss.sum() / (denominator + EPS)


def assert_same(module, logits, label, *, weight=None, avg_factor=None, ignore=255, **options):
    got = module(logits, label, weight=weight, avg_factor=avg_factor, ignore_index=ignore)
    want = twin(logits, label, weight=weight, avg_factor=avg_factor, ignore=ignore, **options)
    torch.testing.assert_close(got, want)
    (got_grad,) = torch.autograd.grad(got.sum(), logits)
    (want_grad,) = torch.autograd.grad(want.sum(), logits)
    torch.testing.assert_close(got_grad, want_grad)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("avg_non_ignore", [False, True])
def test_every_row_of_the_table(reduction, avg_non_ignore, stride):
    logits, label = make(size=(2, 6 * stride, 7 * stride))
    weights = (None, torch.rand(label.shape))
    for class_weight, weight, avg_factor in itertools.product(
        (None, CLASS_WEIGHT), weights, (None, 11.0)
    ):
        if reduction == "sum" and avg_factor:
            continue
        options = {
            "reduction": reduction,
            "class_weight": class_weight,
            "avg_non_ignore": avg_non_ignore,
        }
        module = CrossEntropyLoss(**options)
        assert_same(module, logits, label, weight=weight, avg_factor=avg_factor, **options)


@pytest.mark.parametrize("avg_non_ignore", [False, True])
def test_ignored_label_that_names_a_class(avg_non_ignore):
    logits, label = make(ignore=1)
    options = {"class_weight": CLASS_WEIGHT, "avg_non_ignore": avg_non_ignore}
    assert_same(CrossEntropyLoss(**options), logits, label, ignore=1, **options)


@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 9)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_other_ranks_and_label_dtypes(shape, dtype):
    logits, label = make(shape, dtype=dtype)
    assert_same(CrossEntropyLoss(), logits, label)


def test_label_smoothing_and_align_corners():
    logits, label = make(size=(2, 11, 13))
    module = CrossEntropyLoss(label_smoothing=0.1, class_weight=CLASS_WEIGHT)
    assert_same(module, logits, label, smoothing=0.1, class_weight=CLASS_WEIGHT)
    got = module(logits, label, ignore_index=255, align_corners=True)
    want = twin(logits, label, smoothing=0.1, class_weight=CLASS_WEIGHT, align_corners=True)
    torch.testing.assert_close(got, want)


def test_golden_values_and_loss_weight():
    logits = torch.tensor([[0.0, math.log(3.0)]]).view(1, 2, 1, 1)
    label = torch.zeros(1, 1, 1, dtype=torch.uint8)
    loss = CrossEntropyLoss(loss_weight=0.5)(logits, label)
    torch.testing.assert_close(loss, torch.tensor(0.5 * math.log(4.0)))
    same = torch.tensor([[100.0, -100.0]])
    weighted = CrossEntropyLoss(class_weight=[0.8, 0.2])
    torch.testing.assert_close(weighted(same, torch.tensor([1])), torch.tensor(200.0))


def test_all_ignored_is_exactly_zero_with_zero_gradient():
    for avg_non_ignore, class_weight in itertools.product((False, True), (None, CLASS_WEIGHT)):
        logits, label = make()
        module = CrossEntropyLoss(class_weight=class_weight, avg_non_ignore=avg_non_ignore)
        loss, accuracy = module.loss_and_accuracy(
            logits, torch.full_like(label, 255), ignore_index=255
        )
        loss.backward()
        assert loss.item() == 0.0
        assert not logits.grad.any()
        assert accuracy.tolist() == [100.0]


def test_reduction_override_and_unknown_keywords():
    logits, label = make()
    module = CrossEntropyLoss()
    got = module(logits, label, reduction_override="none", ignore_index=255, anything=1)
    torch.testing.assert_close(got, twin(logits, label, reduction="none"))
    with pytest.raises(ValueError, match="avg_factor can not be used"):
        module(logits, label, avg_factor=3.0, reduction_override="sum", ignore_index=255)


@pytest.mark.parametrize("size", [(2, 6, 7), (2, 13, 9)])
def test_accuracy_comes_with_the_loss(size):
    logits, label = make(size=size)
    module = CrossEntropyLoss()
    for reduction in ("mean", "sum", "none"):
        loss, accuracy = module.loss_and_accuracy(
            logits, label, reduction_override=reduction, ignore_index=255
        )
        torch.testing.assert_close(loss, twin(logits, label, reduction=reduction))
    full = F.interpolate(logits, size[1:], mode="bilinear")
    valid = label != 255
    share = (full.argmax(1) == label)[valid].float().mean()
    torch.testing.assert_close(accuracy, share.view(1) * 100)


def test_same_input_gives_the_same_bits():
    logits, label = make(size=(2, 24, 28))
    module = CrossEntropyLoss()
    losses = [module(logits, label, ignore_index=255) for _ in range(3)]
    assert (losses[0] + losses[1] + losses[2]).item() == (3 * losses[0]).item()


def test_half_precision_logits():
    logits, label = make(size=(2, 12, 14))
    loss = CrossEntropyLoss()(logits.bfloat16(), label, ignore_index=255)
    want = twin(logits.bfloat16().float(), label)
    torch.testing.assert_close(loss.float(), want, atol=1e-3, rtol=1e-3)


def test_class_weight_from_files(tmp_path):
    np.save(tmp_path / "w.npy", np.array(CLASS_WEIGHT))
    (tmp_path / "w.json").write_text(json.dumps(CLASS_WEIGHT))
    (tmp_path / "w.yaml").write_text(str(CLASS_WEIGHT))
    for name in ("w.npy", "w.json", "w.yaml"):
        module = CrossEntropyLoss(class_weight=str(tmp_path / name))
        assert module.class_weight == CLASS_WEIGHT
        assert not module.state_dict()
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        CrossEntropyLoss(class_weight=str(tmp_path / "none.json"))
    with pytest.raises(UserError, match=r"w\.pkl: expected a \.npy"):
        CrossEntropyLoss(class_weight="w.pkl")


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_soft_labels_that_are_one_hot_are_hard_labels(stride, smoothing):
    logits, label = make(size=(2, 6 * stride, 7 * stride))
    onehot = torch.zeros(2, 6 * stride, 7 * stride, 256)
    onehot.scatter_(3, label.long().unsqueeze(3), 1.0)
    soft = onehot[..., :5].permute(0, 3, 1, 2)  # all 0 where the label is 255
    pixel_weight = torch.rand(label.shape)
    for class_weight, avg_non_ignore, weight, avg_factor in itertools.product(
        (None, CLASS_WEIGHT), (False, True), (None, pixel_weight), (None, 7.0)
    ):
        module = CrossEntropyLoss(
            class_weight=class_weight, avg_non_ignore=avg_non_ignore, label_smoothing=smoothing
        )
        options = {"weight": weight, "avg_factor": avg_factor, "ignore_index": 255}
        got, got_accuracy = module.loss_and_accuracy(logits, soft, **options)
        want, want_accuracy = module.loss_and_accuracy(logits, label, **options)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(got_accuracy, want_accuracy)
        (got_grad,) = torch.autograd.grad(got, logits)
        (want_grad,) = torch.autograd.grad(want, logits)
        torch.testing.assert_close(got_grad, want_grad)


def test_soft_labels_are_torchs_and_mixed_labels_two_hard_losses():
    logits, label = make(ignore=4)
    other = label.flip(0)
    a, b = (F.one_hot(x.long(), 5).permute(0, 3, 1, 2).float() for x in (label, other))
    mixed = 0.3 * a + 0.7 * b
    module = CrossEntropyLoss()
    torch.testing.assert_close(module(logits, mixed), F.cross_entropy(logits, mixed))
    two = 0.3 * module(logits, label) + 0.7 * module(logits, other)
    torch.testing.assert_close(module(logits, mixed), two)
    none = F.cross_entropy(logits, mixed, reduction="none")
    torch.testing.assert_close(module(logits, mixed, reduction_override="none"), none)
    with pytest.raises(AssertionError, match="class indices are integers"):
        module(logits, label.float())


def test_constructor_and_rejections():
    module = CrossEntropyLoss(avg_non_ignore=True, loss_name="loss_mine")
    assert module.extra_repr() == "avg_non_ignore=True"
    assert module.loss_name == "loss_mine"
    with pytest.raises(AssertionError):
        CrossEntropyLoss(use_sigmoid=True, use_mask=True)
    with pytest.raises(UserError, match="label_smoothing needs a softmax"):
        CrossEntropyLoss(use_sigmoid=True, label_smoothing=0.1)
    with pytest.raises(UserError, match="use_mask is for instance masks"):
        CrossEntropyLoss(use_mask=True).loss_and_accuracy(*make())
    with pytest.raises(UserError, match="reduction"):
        CrossEntropyLoss(reduction="average")
    logits, label = make()
    with pytest.raises(UserError, match=r"class_weight has shape \(2,\).* 5 output channels"):
        CrossEntropyLoss(class_weight=[1, 2])(logits, label)
    with pytest.raises(UserError, match="softmax over one channel"):
        CrossEntropyLoss()(logits[:, :1], label)
    with pytest.raises(LabelError, match="255"):
        CrossEntropyLoss()(logits, label)
    with pytest.raises(AssertionError, match="weight"):
        CrossEntropyLoss()(logits, label, weight=torch.ones(2), ignore_index=255)


def test_what_upstreams_tests_import():
    """Their functions by their names, and in their order of arguments."""
    pred, label = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    label[0, 0] = 255
    truth = F.cross_entropy(pred, label, ignore_index=255, reduction="none")
    rule = (None, None, "mean", None, 255, True)
    torch.testing.assert_close(models.cross_entropy(pred, label, *rule), truth.sum() / 28)
    onehot, weight, valid = models._expand_onehot_labels(label, None, pred.shape, 255)
    torch.testing.assert_close(
        models.binary_cross_entropy(pred, label, None, "sum", None, None, 255),
        (F.binary_cross_entropy_with_logits(pred, onehot, reduction="none") * weight).sum(),
    )
    assert valid.sum() == 28 * 3
    masks, classes = torch.randint(0, 2, (2, 4, 4)), torch.tensor([2, 0])
    torch.testing.assert_close(
        models.mask_cross_entropy(pred, masks, classes),
        F.binary_cross_entropy_with_logits(pred[[0, 1], classes], masks.float()).view(1),
    )
    assert models.reduce_loss(truth, "none") is truth
    assert models.weighted_loss(F.mse_loss)(pred, pred) == 0
    assert models.Accuracy()(pred, pred.argmax(1)) == [100.0]
