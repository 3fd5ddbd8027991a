"""Optimiser wrappers and schedulers against their closed forms."""

# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
from torch import nn

from segfast.errors import ConfigError
from segfast.runner import (
    AmpOptimWrapper,
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    MultiStepLR,
    OptimWrapper,
    PolyLR,
    build_optim_wrapper,
)


def optimizer(lr=1.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def values(scheduler, count):
    result = []
    for _ in range(count):
        result.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.step()
    return result


def test_poly_ends_at_eta_min():
    actual = values(
        PolyLR(optimizer(), power=0.9, eta_min=1e-4, begin=0, end=10, by_epoch=False), 10
    )
    assert actual == pytest.approx([1e-4 + (1 - 1e-4) * (1 - t / 9) ** 0.9 for t in range(10)])
    assert actual[-1] == 1e-4


def test_linear_warms_up_and_leaves_alone():
    actual = values(LinearLR(optimizer(2.0), start_factor=0.25, begin=0, end=5, by_epoch=False), 7)
    assert actual == pytest.approx([0.5, 0.875, 1.25, 1.625, 2.0, 2.0, 2.0])


def test_cosine_constant_and_steps():
    cosine = values(CosineAnnealingLR(optimizer(), begin=0, end=4, by_epoch=False), 4)
    assert cosine == pytest.approx([(1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)])
    assert values(ConstantLR(optimizer(), factor=0.5, begin=0, end=3), 4) == [0.5, 0.5, 1.0, 1.0]
    assert values(MultiStepLR(optimizer(), milestones=[2, 3], gamma=0.1), 5) == pytest.approx(
        [1, 1, 0.1, 0.01, 0.01]
    )


def test_warm_up_then_decay():
    sgd = optimizer()
    warm, decay = (
        LinearLR(sgd, 0.5, begin=0, end=3, by_epoch=False),
        PolyLR(sgd, begin=3, end=6, by_epoch=False),
    )
    actual = []
    for _ in range(6):
        actual.append(sgd.param_groups[0]["lr"])
        warm.step()
        decay.step()
    assert actual == pytest.approx([0.5, 0.75, 1.0, 1.0, 0.5, 0.0])


def test_scheduler_state_round_trip():
    first = PolyLR(optimizer(), begin=0, end=10)
    for _ in range(4):
        first.step()
    second = PolyLR(optimizer(), begin=0, end=10)
    second.load_state_dict(first.state_dict())
    assert values(second, 3)[1:] == values(first, 3)[1:]


@pytest.mark.parametrize("total", [6, 7, 8])
def test_accumulation_equals_a_larger_batch(total):
    """Groups of 3 micro-steps; the trailing group is divided by its own length."""
    data = torch.randn(total, 4)
    model = nn.Linear(4, 1, bias=False)
    start = model.weight.detach().clone()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=3)
    wrapper.initialize_count_status(model, 0, total)
    for row in data:
        with wrapper.optim_context(model):
            loss = model(row).square().sum()
        wrapper.update_params(loss)
    expected = start.clone().requires_grad_()
    for group in data.split(3):
        (grad,) = torch.autograd.grad((group @ expected.T).square().mean(), expected)
        expected = (expected - 0.1 * grad).detach().requires_grad_()
    torch.testing.assert_close(model.weight.detach(), expected.detach())


def test_clipping_by_norm_and_value():
    for clip, check in [
        ({"max_norm": 0.1}, lambda g: g.norm() <= 0.1001),
        ({"type": "value", "clip_value": 0.01}, lambda g: g.abs().max() <= 0.01),
    ]:
        parameter = nn.Parameter(torch.ones(5))
        wrapper = OptimWrapper(torch.optim.SGD([parameter], lr=1.0), clip_grad=clip)
        wrapper.update_params((parameter * 100).sum())
        assert check(1 - parameter.detach())
    with pytest.raises(ValueError, match="If `clip_grad` is not None"):
        OptimWrapper(optimizer(), clip_grad=3.0)


def test_amp_on_the_cpu_runs_under_bfloat16():
    model = nn.Linear(4, 2)
    wrapper = AmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    with wrapper.optim_context(model):
        out = model(torch.randn(3, 4))
        assert out.dtype == torch.bfloat16
    before = model.weight.detach().clone()
    wrapper.update_params(out.float().sum())
    assert not torch.equal(model.weight.detach(), before)
    with pytest.raises(TypeError, match="loss_scale must be of type float"):
        AmpOptimWrapper(optimizer(), loss_scale=None)


def test_paramwise_groups():
    model = nn.Sequential()
    model.add_module("encoder", nn.Linear(2, 2))
    model.add_module("norm", nn.BatchNorm1d(2))
    model.add_module("head", nn.Linear(2, 1))
    model.head.bias.requires_grad_(False)
    wrapper = build_optim_wrapper(
        model,
        {
            "optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.1},
            "paramwise_cfg": {"custom_keys": {"encoder": {"lr_mult": 0.1}}, "norm_decay_mult": 0.0},
        },
    )
    found = {(g["lr"], g["weight_decay"]): len(g["params"]) for g in wrapper.param_groups}
    assert found == {(0.1, 0.1): 2, (1.0, 0.0): 2, (1.0, 0.1): 1}
    with pytest.raises(ConfigError, match=r"paramwise_cfg.custom_key: unknown"):
        build_optim_wrapper(
            model, {"optimizer": {"type": "SGD", "lr": 1}, "paramwise_cfg": {"custom_key": {}}}
        )
