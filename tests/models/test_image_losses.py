"""Losses of images and of discriminators: golden numbers, weights, types."""

# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch

from segfast.models import CharbonnierLoss, GANLoss, L1Loss, MSELoss

ELEMENTS = [
    (L1Loss, {}, 2.0),
    (MSELoss, {}, 4.0),
    (CharbonnierLoss, {"eps": 5.0}, 3.0),
]


@pytest.mark.parametrize(("kind", "options", "value"), ELEMENTS)
def test_reductions(kind, options, value):
    pred, target = torch.full((2, 3, 4, 4), 3.0), torch.ones(2, 3, 4, 4)
    for reduction, expected in (("mean", value), ("sum", value * 96)):
        loss = kind(loss_weight=0.5, reduction=reduction, **options)(pred, target)
        assert loss.item() == pytest.approx(expected / 2)
    none = kind(reduction="none", **options)(pred, target)
    assert none.shape == pred.shape
    assert none.unique().tolist() == pytest.approx([value])
    with pytest.raises(ValueError, match="reduction"):
        kind(reduction="max")


def test_weights():
    pred = torch.arange(8.0).view(2, 1, 2, 2)
    target = torch.zeros_like(pred)
    weight = torch.tensor([1.0, 1, 0, 0, 1, 0, 0, 0]).view(2, 1, 2, 2)
    assert L1Loss()(pred, target, weight).item() == pytest.approx((0 + 1 + 4) / 3)
    assert L1Loss(sample_wise=True)(pred, target, weight).item() == pytest.approx((0.5 + 4) / 2)
    assert L1Loss(reduction="sum")(pred, target, weight).item() == 5
    assert L1Loss(reduction="none")(pred, target, weight).sum().item() == 5
    wide = pred.expand(2, 3, 2, 2)  # one weight for all channels
    assert L1Loss()(wide, torch.zeros_like(wide), weight).item() == pytest.approx(5 / 3)
    with pytest.raises(AssertionError, match="rank 4"):
        L1Loss()(pred, target, weight[0])


SOFTPLUS = {s: math.log1p(math.exp(s)) for s in (-2.0, 2.0)}


@pytest.mark.parametrize(
    ("kind", "disc_real", "disc_fake", "generator"),
    [
        ("vanilla", SOFTPLUS[-2.0], SOFTPLUS[2.0], SOFTPLUS[-2.0]),
        ("wgan-logistic-ns", SOFTPLUS[-2.0], SOFTPLUS[2.0], SOFTPLUS[-2.0]),
        ("lsgan", 1.0, 4.0, 1.0),
        ("l1", 1.0, 2.0, 1.0),
        ("wgan", -2.0, 2.0, -2.0),
        ("hinge", 0.0, 3.0, -2.0),
    ],
)
def test_discriminator_scores(kind, disc_real, disc_fake, generator):
    loss = GANLoss(kind, loss_weight=10)
    scores = torch.full((4, 1), 2.0)
    assert loss(scores, True, is_disc=True).item() == pytest.approx(disc_real, rel=1e-5)
    assert loss(scores, False, is_disc=True).item() == pytest.approx(disc_fake, rel=1e-5)
    assert loss(scores, True).item() == pytest.approx(10 * generator, rel=1e-5)


def test_other_targets_and_types():
    loss = GANLoss("lsgan", real_label_val=0.9, fake_label_val=0.1)
    assert loss(torch.zeros(2), True, is_disc=True).item() == pytest.approx(0.81)
    assert loss(torch.zeros(2), False, is_disc=True).item() == pytest.approx(0.01)
    with pytest.raises(ValueError, match="hinge, got 'smgan'"):
        GANLoss("smgan")
