"""The gradient that cross_entropy forms in its forward walk: handed over once, scaled, formed anew for a second backward.

The walk is CUDA's. On the CPU two walks stand in for it, so that what Python does with the gradient is tested there, too.
"""

# SPDX-License-Identifier: Apache-2.0

import sys

import pytest
import torch
from helpers import DEVICES, LAYOUTS, random_labels, strided

from segfast.ops import cross_entropy, cross_entropy_terms

MODULE = sys.modules["segfast.ops.cross_entropy"]  # the attribute of that name is the function
ops = torch.ops.segfast


class StandIn:
    """CPU kernels for the two operators that only CUDA has, and how often they were called."""

    def __init__(self):
        self.formed = self.scaled = 0
        self.library = torch.library.Library("segfast", "IMPL")
        self.library.impl("cross_entropy_with_gradient", self.form, "CPU")
        self.library.impl("scale_gradient_", self.scale, "CPU")

    def form(self, logits, target, weight, pixel_weight, *options):
        self.formed += 1
        inputs = (logits, target, weight, pixel_weight)
        loss, stats, weight_sum, tally = ops.cross_entropy(*inputs, *options)
        one = torch.ones(())
        grad = ops.cross_entropy_backward(one, *inputs, stats, weight_sum, *options[:-1])
        return loss, grad, weight_sum, tally

    def scale(self, gradient, grad_loss):
        self.scaled += 1
        gradient.mul_(grad_loss)


def set_walks(monkeypatch, one):
    monkeypatch.setattr(MODULE, "_in_one_walk", lambda logits, reduction: one)


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    """A device where the loss takes one walk."""
    if request.param == "cuda":
        yield request.param
        return
    stand_in = StandIn()
    set_walks(monkeypatch, True)
    yield request.param
    assert stand_in.formed
    stand_in.library._destroy()


def draw(device, shape=(2, 19, 16, 24), dtype=torch.float32):
    logits = (torch.randn(shape, device=device) * 3).to(dtype).requires_grad_()
    return logits, random_labels((shape[0], *shape[2:]), min(shape[1], 255), device=device)


def close(actual, expected):
    tolerance = {torch.float32: 2e-6, torch.bfloat16: 8e-3}[actual.dtype]
    largest = expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * largest + 1e-12)


@pytest.mark.parametrize("shape", [(2, 19, 16, 24), (3, 2, 5, 7), (1, 150, 9, 8), (2, 300, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_two_walks(device, shape, dtype, layout, monkeypatch):
    logits, target = draw(device, shape, dtype)
    logits = strided(logits.detach(), layout).requires_grad_()
    options = {
        "weight": torch.rand(shape[1], device=device),
        "pixel_weight": torch.rand(target.shape, device=device),
        "ignore_index": 255,
    }
    for reduction in ("mean", "sum"):
        for label_smoothing in (0.0, 0.1):
            options |= {"reduction": reduction, "label_smoothing": label_smoothing}
            loss = cross_entropy(logits, target, **options)
            (grad,) = torch.autograd.grad(loss, logits, torch.full_like(loss, 0.5))
            with monkeypatch.context() as context:
                set_walks(context, False)
                expected = cross_entropy(logits, target, **options)
                (expected_grad,) = torch.autograd.grad(expected, logits, torch.full_like(loss, 0.5))
            close(loss.detach(), expected.detach())
            close(grad, expected_grad)
            assert grad.stride() == expected_grad.stride()


def test_scaled(device):
    """By what a GradScaler multiplies with, by 0, and by a weight of the loss."""
    logits, target = draw(device)
    (grad,) = torch.autograd.grad(cross_entropy(logits, target, ignore_index=255), logits)
    for scale in (65536.0, 0.0, 0.4, -1.0):
        loss = cross_entropy(logits, target, ignore_index=255) * scale
        close(torch.autograd.grad(loss, logits)[0], grad * scale)


def test_backward_twice(device):
    logits, target = draw(device)
    loss = cross_entropy(logits, target, ignore_index=255)
    first = torch.autograd.grad(loss, logits, torch.tensor(3.0, device=device), retain_graph=True)
    kept = first[0].clone()
    second = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    third = torch.autograd.grad(loss, logits, torch.tensor(0.5, device=device))[0]
    assert torch.equal(first[0], kept)
    close(kept, second * 3)
    close(third, second / 2)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, logits)


def test_accumulates(device):
    """Two losses of the same logits, one backward each, into one .grad."""
    logits, target = draw(device)
    other = random_labels(target.shape, 19, device=device)
    losses = [cross_entropy(logits, t, ignore_index=255) for t in (target, other)]
    for loss in losses:
        loss.backward(retain_graph=True)
    kept = logits.grad.clone()
    logits.grad = None
    (losses[0] + losses[1]).backward()
    close(kept, logits.grad)


def test_no_second_derivative(device):
    logits, target = draw(device)
    loss = cross_entropy(logits, target, ignore_index=255)
    (grad,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        grad.sum().backward()


def test_terms(device):
    logits, target = draw(device)
    terms = cross_entropy_terms(logits, target, ignore_index=255, with_accuracy=True)
    (terms.loss_sum / terms.num_valid).backward()
    (expected,) = torch.autograd.grad(cross_entropy(logits, target, ignore_index=255), logits)
    close(logits.grad, expected)
    valid = target != 255
    assert terms.num_valid == valid.sum()
    assert terms.num_correct == ((logits.argmax(1) == target) & valid).sum()


def test_all_ignored(device):
    logits, target = draw(device)
    loss = cross_entropy(logits, torch.full_like(target, 255), ignore_index=255)
    assert loss.isnan()
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_handed_over_without_a_copy(monkeypatch):
    stand_in = StandIn()
    set_walks(monkeypatch, True)
    logits, target = draw("cpu")
    loss = cross_entropy(logits, target, ignore_index=255)
    formed = loss.grad_fn.gradient.data_ptr()
    loss.backward()
    assert logits.grad.data_ptr() == formed
    assert loss.grad_fn.gradient is None
    assert (stand_in.formed, stand_in.scaled) == (1, 1)
    stand_in.library._destroy()


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_which_walks(dtype):
    logits, target = draw("cuda", dtype=dtype)
    for reduction in ("mean", "sum", "none"):
        node = cross_entropy(logits, target, ignore_index=255, reduction=reduction).grad_fn
        if dtype != torch.float32:
            node = node.next_functions[0][0]  # before it is rounded
        assert hasattr(node, "gradient") == (reduction == "mean" and dtype != torch.float16)


@pytest.mark.cuda
def test_side_stream():
    """The backward runs on the stream of the forward, whatever is current."""
    logits, target = draw("cuda", (4, 19, 128, 128))
    (expected,) = torch.autograd.grad(cross_entropy(logits, target, ignore_index=255) * 3, logits)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)
        loss = cross_entropy(logits, target, ignore_index=255) * 3
    (grad,) = torch.autograd.grad(loss, logits)
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(grad, expected)


@pytest.mark.cuda
def test_same_bits_every_run():
    logits, target = draw("cuda", (3, 150, 65, 128), torch.bfloat16)
    runs = []
    for _ in range(3):
        loss = cross_entropy(logits, target, ignore_index=255)
        runs.append((loss.detach(), *torch.autograd.grad(loss, logits)))
    for loss, grad in runs[1:]:
        assert torch.equal(loss, runs[0][0])
        assert torch.equal(grad, runs[0][1])


@pytest.mark.cuda
def test_opcheck():
    logits, target = draw("cuda")
    weight = torch.rand(19, device="cuda")
    for args in ((None, None, 255, 1, 0.0, False), (weight, None, 255, 2, 0.1, True)):
        torch.library.opcheck(ops.cross_entropy_with_gradient.default, (logits, target, *args))
    gradient, grad_loss = torch.randn(5, 7, device="cuda"), torch.tensor(0.5, device="cuda")
    torch.library.opcheck(ops.scale_gradient_.default, (gradient, grad_loss))
