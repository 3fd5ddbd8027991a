"""The loss and the statistics of segmentation_models_pytorch, beside the package's own."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("segmentation_models_pytorch")

import segmentation_models_pytorch as smp

from segfast.errors import UserError
from segfast.integrations.smp import SoftCrossEntropyLoss, get_stats

CLASSES = 6


@pytest.fixture
def batch():
    labels = torch.randint(0, CLASSES, (3, 40, 48))
    labels[torch.rand(3, 40, 48) < 0.2] = 255
    return torch.randn(3, CLASSES, 10, 12), labels


def full_size(logits, labels):
    return F.interpolate(logits, labels.shape[1:], mode="bilinear")


@pytest.mark.parametrize("smooth_factor", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_loss_is_the_packages_own(batch, reduction, smooth_factor):
    logits, labels = batch
    options = {"reduction": reduction, "smooth_factor": smooth_factor, "ignore_index": 255}
    ours, theirs = SoftCrossEntropyLoss(**options), smp.losses.SoftCrossEntropyLoss(**options)
    grads = []
    for loss, resize in ((ours, lambda x, _: x), (theirs, full_size)):
        x = logits.clone().requires_grad_()
        value = loss(resize(x, labels), labels)
        value.sum().backward()
        grads.append((value.reshape(labels.shape) if reduction == "none" else value, x.grad))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-6)


def test_loss_takes_uint8_masks_with_a_channel_axis(batch):
    logits, labels = batch
    loss = SoftCrossEntropyLoss(ignore_index=255)
    assert loss(logits, labels[:, None].to(torch.uint8)) == loss(logits, labels)


@pytest.mark.parametrize(("options", "problem"), [({"dim": 2}, "dim is 1"), ({"reduction": "avg"}, "reduction is")])  # fmt: skip
def test_loss_refuses(options, problem):
    with pytest.raises(UserError, match=problem):
        SoftCrossEntropyLoss(**options)


def test_stats_are_the_packages_own(batch):
    logits, labels = batch
    options = {"mode": "multiclass", "ignore_index": 255, "num_classes": CLASSES}
    classes = full_size(logits, labels).argmax(1)
    expected = smp.metrics.get_stats(classes, labels, **options)
    for output in (logits, classes, classes.to(torch.uint8)):
        actual = get_stats(output, labels, **options)
        assert [s.shape for s in actual] == [(3, CLASSES)] * 4
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert smp.metrics.iou_score(*actual, reduction="macro") == smp.metrics.iou_score(*expected, reduction="macro")  # fmt: skip


def test_stats_without_an_ignored_label(batch):
    classes = torch.randint(0, CLASSES, (2, 9, 9))
    options = {"mode": "multiclass", "num_classes": CLASSES}
    assert [s.tolist() for s in get_stats(classes, classes, **options)] == [
        s.tolist() for s in smp.metrics.get_stats(classes, classes, **options)
    ]


def test_stats_refuse(batch):
    logits, labels = batch
    with pytest.raises(UserError, match=r"'binary' \(use smp\.metrics\.get_stats"):
        get_stats(logits, labels, mode="binary")
    with pytest.raises(UserError, match="num_classes is missing"):
        get_stats(labels, labels)


def test_trains_a_network_at_its_own_stride():
    net = smp.FPN("resnet18", encoder_weights=None, classes=CLASSES, upsampling=1)
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(0, CLASSES, (2, 64, 64))
    logits = net(images)
    assert logits.shape[2:] == (16, 16)
    SoftCrossEntropyLoss()(logits, labels).backward()
    assert net.segmentation_head[0].weight.grad.abs().sum() > 0
