"""upsample_cross_entropy of unusual inputs: infinite class weights, memory at odd addresses."""

# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
from helpers import DEVICES, random_labels

from segfast.ops import upsample_cross_entropy, upsample_cross_entropy_reference


def loss_and_grad(function, logits, target, **options):
    """Loss, and the gradient of its sum."""
    logits = logits.detach().requires_grad_()
    loss = function(logits, target, **options)
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), grad


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [math.inf, math.nan])
@pytest.mark.parametrize("size", [(8, 10), (4, 5)])
def test_weight_of_an_absent_class_does_not_matter(device, size, weight, reduction):
    logits = torch.randn(2, 3, 4, 5, device=device)
    target = torch.randint(1, 3, (2, *size), device=device)
    options = {"weight": torch.tensor([weight, 1.0, 2.0], device=device), "reduction": reduction}
    with torch.no_grad():  # the walk without a gradient
        alone = upsample_cross_entropy(logits, target, **options)
    actual = loss_and_grad(upsample_cross_entropy, logits, target, **options)
    expected = loss_and_grad(upsample_cross_entropy_reference, logits, target, **options)
    assert expected[0].isfinite().all()
    torch.testing.assert_close((*actual, alone), (*expected, expected[0]), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 10), (4, 5)])
def test_training_step_on_unaligned_memory(size):
    """As torch.frombuffer may lay it out: read through a copy, and the gradient lies as it always does."""
    logits, target = torch.randn(2, 3, 4, 5), random_labels((2, *size), 3)
    raw = bytearray(1) + bytearray(logits.numpy().tobytes())
    odd = torch.frombuffer(raw, dtype=torch.float32, offset=1).view(logits.shape)
    options = {"ignore_index": 255}
    expected = loss_and_grad(upsample_cross_entropy, logits, target, **options)
    for ours, wanted in zip(
        loss_and_grad(upsample_cross_entropy, odd, target, **options), expected, strict=True
    ):
        assert torch.equal(ours, wanted)
