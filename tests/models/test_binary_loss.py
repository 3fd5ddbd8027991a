"""The sigmoid path of CrossEntropyLoss, and the shared reductions and accuracy."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F

from segfast.errors import LabelError, UserError
from segfast.models import (
    Accuracy,
    CrossEntropyLoss,
    accuracy,
    reduce_loss,
    weight_reduce_loss,
    weighted_loss,
)
from segfast.models.binary_loss import _expand_onehot_labels

EPS = torch.finfo(torch.float32).eps


def test_one_channel_ignores_and_averages():
    torch.manual_seed(0)
    pred = torch.randn(2, 1, 4, 4)
    label = torch.randint(0, 2, (2, 4, 4), dtype=torch.uint8)
    label[0, :2] = 255
    valid = (label != 255).float()
    element = F.binary_cross_entropy_with_logits(pred[:, 0], label.float(), reduction="none")
    element = element * valid
    plain = CrossEntropyLoss(use_sigmoid=True)
    torch.testing.assert_close(plain(pred, label, ignore_index=255), element.mean())
    valid_only = CrossEntropyLoss(use_sigmoid=True, avg_non_ignore=True)
    loss, acc = valid_only.loss_and_accuracy(pred, label, ignore_index=255)
    torch.testing.assert_close(loss, element.sum() / valid.sum())
    right = ((pred[:, 0] > 0) == (label == 1))[valid.bool()].float().mean()
    torch.testing.assert_close(acc, 100 * right.view(1))
    torch.testing.assert_close(
        plain(pred, label, ignore_index=255, avg_factor=7.0), element.sum() / 7
    )
    none = plain(pred, label, ignore_index=255, reduction_override="none")
    torch.testing.assert_close(none, element)
    assert plain(pred, torch.full_like(label, 255), ignore_index=255).item() == 0.0


def test_several_channels_use_one_hot_labels():
    torch.manual_seed(0)
    pred, label = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    label[1, 0] = 255
    weight = torch.rand(2, 4, 4)
    valid = (label != 255).unsqueeze(1).expand_as(pred).float()
    onehot = F.one_hot(label.clamp(max=2), 3).permute(0, 3, 1, 2).float() * valid
    factors = torch.tensor([1.0, 2.0, 3.0])
    element = F.binary_cross_entropy_with_logits(
        pred, onehot, pos_weight=factors.view(3, 1, 1), reduction="none"
    )
    module = CrossEntropyLoss(use_sigmoid=True, class_weight=[1.0, 2.0, 3.0], avg_non_ignore=True)
    want = (element * valid * weight.unsqueeze(1)).sum() / (valid.sum() + EPS)
    torch.testing.assert_close(module(pred, label, weight=weight, ignore_index=255), want)
    got = _expand_onehot_labels(label, None, pred.shape, 255)
    assert torch.equal(got[0], onehot)
    assert torch.equal(got[1], valid)
    assert torch.equal(got[2], valid)


def test_targets_of_preds_shape_and_smaller_logits():
    pred, soft = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    module = CrossEntropyLoss(use_sigmoid=True)
    want = F.binary_cross_entropy_with_logits(pred, soft)
    torch.testing.assert_close(module(pred, soft), want)
    rows = torch.randn(5, 3)
    label = torch.tensor([0, 1, 2, 1, 0])
    want = F.binary_cross_entropy_with_logits(rows, F.one_hot(label, 3).float())
    torch.testing.assert_close(module(rows, label), want)
    big = torch.randint(0, 2, (2, 8, 8))
    up = F.interpolate(pred[:, :1], (8, 8), mode="bilinear")
    torch.testing.assert_close(module(pred[:, :1], big), module(up, big))


def test_labels_no_channel_stands_for_are_an_error():
    module = CrossEntropyLoss(use_sigmoid=True)
    with pytest.raises(LabelError, match="255"):
        module(torch.randn(1, 1, 2, 2), torch.full((1, 2, 2), 255))
    with pytest.raises(LabelError, match="3"):
        module(torch.randn(1, 3, 2, 2), torch.full((1, 2, 2), 3))
    module(torch.randn(1, 3, 2, 2), torch.full((1, 2, 2), -1))  # negative labels are ignored


def test_weights_of_the_positives_of_any_shape():
    pred, label = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    onehot = F.one_hot(label, 3).permute(0, 3, 1, 2).float()
    full = torch.rand(2, 3, 4, 4)
    want = F.binary_cross_entropy_with_logits(pred, onehot, pos_weight=full)
    torch.testing.assert_close(CrossEntropyLoss(True, class_weight=full)(pred, label), want)
    one, hard = pred[:, :1], label.clamp(max=1)
    want = F.binary_cross_entropy_with_logits(
        one[:, 0], hard.float(), pos_weight=torch.tensor(2.5), reduction="none"
    )
    for reduction in ("none", "sum", "mean"):
        module = CrossEntropyLoss(True, class_weight=[2.5], reduction=reduction)
        torch.testing.assert_close(module(one, hard), reduce_loss(want, reduction))
    wide = torch.rand(4)  # broadcast over columns: no weight per channel
    with pytest.raises(UserError, match="class_weight has 4 values, but the network has 3"):
        CrossEntropyLoss(True, class_weight=wide)(pred, label)


def test_masks_of_objects():
    pred, target = torch.randn(3, 4, 5, 6), torch.randint(0, 2, (3, 5, 6))
    classes = torch.tensor([0, 3, 3])
    loss = CrossEntropyLoss(use_mask=True, loss_weight=2.0)
    got = loss(pred, target, weight=classes, ignore_index=None)
    want = F.binary_cross_entropy_with_logits(pred[[0, 1, 2], [0, 3, 3]], target.float())
    torch.testing.assert_close(got, 2 * want.view(1))
    with pytest.raises(AssertionError, match="ignore_index=None"):
        loss(pred, target, weight=classes)


def test_labels_that_the_dtype_cannot_hold_are_not_ignored():
    label = torch.full((1, 2, 2), 156, dtype=torch.uint8)  # what -100 wraps to
    loss = CrossEntropyLoss(use_sigmoid=True)(torch.zeros(1, 200, 2, 2), label, ignore_index=-100)
    torch.testing.assert_close(loss, torch.tensor(2.0).log())


def test_reduce_and_weight_reduce_loss():
    x = torch.rand(2, 3, 4)
    weight = torch.rand(2, 1, 4)
    assert reduce_loss(x, "none") is x
    torch.testing.assert_close(weight_reduce_loss(x, weight), (x * weight).mean())
    torch.testing.assert_close(weight_reduce_loss(x, weight, "sum"), (x * weight).sum())
    torch.testing.assert_close(weight_reduce_loss(x, None, "mean", 5.0), x.sum() / 5)
    torch.testing.assert_close(weight_reduce_loss(x, weight, "none", 5.0), x * weight)
    with pytest.raises(ValueError, match="avg_factor"):
        weight_reduce_loss(x, None, "sum", 5.0)
    for bad in (torch.rand(2, 3), torch.rand(2, 2, 4)):
        with pytest.raises(AssertionError):
            weight_reduce_loss(x, bad)


def test_weighted_loss_adds_weights_and_reductions():
    @weighted_loss
    def distance(pred, target, power=1):
        """Difference to some power."""
        return (pred - target).abs() ** power

    pred, target, weight = torch.tensor([0.0, 2, 3]), torch.ones(3), torch.tensor([1.0, 0, 1])
    assert distance.__doc__ == "Difference to some power."
    torch.testing.assert_close(distance(pred, target), torch.tensor(4 / 3))
    torch.testing.assert_close(distance(pred, target, weight, "sum", power=2), torch.tensor(5.0))
    torch.testing.assert_close(distance(pred, target, weight, avg_factor=2), torch.tensor(1.5))


def test_accuracy():
    pred = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    target = torch.tensor([1, 1, 2, 2])
    assert accuracy(pred, target).tolist() == pytest.approx([50.0])
    assert [x.item() for x in accuracy(pred, target, topk=(1, 2, 3))] == pytest.approx(
        [50, 75, 100]
    )
    assert accuracy(pred, target, thresh=0.6).item() == pytest.approx(25.0)
    assert accuracy(pred, target, ignore_index=2).item() == pytest.approx(50.0)
    assert accuracy(pred, torch.full((4,), 255), ignore_index=255).item() == 100.0
    assert accuracy(torch.zeros(0, 3), torch.zeros(0)).item() == 0
    maps = torch.randn(2, 3, 4, 5)
    assert accuracy(maps, maps.argmax(1)).item() == 100.0
    module = Accuracy(topk=(1, 2), ignore_index=2)
    want = accuracy(pred, target, (1, 2), ignore_index=2)
    torch.testing.assert_close(module(pred, target), want)
    for arguments in ((pred, target, "1"), (pred, target[None]), (pred, target, 4)):
        with pytest.raises(AssertionError):
            accuracy(*arguments)
