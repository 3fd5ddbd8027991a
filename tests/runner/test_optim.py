"""Optimiser wrappers: accumulation, clipping, mixed precision, several optimisers."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from torch import nn

from segfast.errors import ConfigError
from segfast.runner import (
    AmpOptimWrapper,
    OptimWrapper,
    OptimWrapperDict,
    build_optim_wrapper,
)


def optimizer(lr=1.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


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
    for wrong in (3.0, {}, [1.0]):
        with pytest.raises(AssertionError, match="If `clip_grad` is not None"):
            OptimWrapper(optimizer(), clip_grad=wrong)


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
    assert AmpOptimWrapper(optimizer=optimizer(), loss_scale=2.0, use_fsdp=True)._fixed_scale == 2.0


def test_a_fixed_scale_stays_and_float16_is_scaled():
    parameter = nn.Parameter(torch.ones(3))
    wrapper = AmpOptimWrapper(
        torch.optim.SGD([parameter], lr=1.0),
        dtype="float16",
        loss_scale=8.0,
        clip_grad={"max_norm": 9},
    )
    for _ in range(3):
        wrapper.backward(parameter.sum())
        assert parameter.grad.tolist() == [8.0] * 3
        wrapper.step()
        wrapper.zero_grad()
    assert parameter.tolist() == [-2.0] * 3  # unscaled before the step
    assert wrapper.loss_scaler.get_scale() == 8.0
    parameter.grad = torch.full((3,), torch.inf)
    wrapper.step()
    assert parameter.tolist() == [-2.0] * 3  # an overflow is no step
    assert wrapper.loss_scaler.get_scale() == 8.0
    again = AmpOptimWrapper(torch.optim.SGD([parameter], lr=1.0), dtype=torch.float16)
    again.load_state_dict(wrapper.state_dict())
    assert again.loss_scaler.get_scale() == 8.0
    with pytest.raises(ValueError, match="dtype should be any of float16, bfloat16"):
        AmpOptimWrapper(optimizer(), dtype="int8")


def test_no_exchange_of_gradients_within_a_group():
    class Model(nn.Linear):
        quiet = 0

        def no_sync(self):
            self.quiet += 1
            return torch.no_grad()

    model = Model(1, 1)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=3)
    wrapper.initialize_count_status(model, 0, 7)
    quiet = []
    for _ in range(7):
        with wrapper.optim_context(model):
            quiet.append(model.quiet)
        wrapper.update_params(model(torch.ones(1)).sum())
    assert quiet == [1, 2, 2, 3, 4, 4, 4]  # iterations 3, 6 and the last one exchange


def test_steps_by_hand_and_their_arguments():
    parameter = nn.Parameter(torch.ones(1))
    wrapper = OptimWrapper(torch.optim.SGD([parameter], lr=1.0), accumulative_counts=2)
    steps = []
    for _ in range(4):
        wrapper.backward(parameter.sum())
        steps.append(wrapper.should_update())
    assert steps == [False, True, False, True]
    wrapper.update_params(parameter.sum())
    wrapper.update_params(
        parameter.sum(), step_kwargs={"closure": None}, zero_kwargs={"set_to_none": False}
    )
    assert parameter.grad.tolist() == [0.0]
    with pytest.raises(TypeError, match=r"some key that the model returns .* must contain 'loss'"):
        wrapper.update_params(0)


def test_rates_of_several_groups_and_their_base():
    one, two = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    wrapper = OptimWrapper(
        torch.optim.Adam([{"params": [one], "lr": 0.5}, {"params": [two]}], lr=2)
    )
    assert wrapper.get_lr() == {"lr": [0.5, 2], "base_lr": [2]}
    assert wrapper.get_momentum() == {"momentum": [0.9, 0.9], "base_momentum": [0.9]}
    assert len(wrapper.param_groups) == 3
    state = wrapper.state_dict()
    wrapper.param_groups[-1]["lr"] = 1
    wrapper.load_state_dict(state)
    assert wrapper.get_lr()["base_lr"] == [2]
    assert "base_param_settings" in state  # and is not lost by loading
    assert OptimWrapper(optimizer()).get_lr() == {"lr": [1.0]}


def test_several_optimisers():
    model = nn.ModuleDict({"generator": nn.Linear(1, 1), "discriminator": nn.Linear(1, 1)})
    model.generator, model.discriminator = model["generator"], model["discriminator"]
    sgd = {"optimizer": {"type": "SGD", "lr": 1.0}}
    wrappers = build_optim_wrapper(model, {"generator": sgd, "discriminator": sgd})
    assert list(wrappers.keys()) == ["generator", "discriminator"]
    assert wrappers.get_lr() == {"generator.lr": [1.0], "discriminator.lr": [1.0]}
    before = model["discriminator"].weight.item()
    wrappers["generator"].update_params(model["generator"].weight.sum())
    assert model["discriminator"].weight.item() == before
    other = build_optim_wrapper(
        model,
        {"constructor": "MultiOptimWrapperConstructor", "generator": sgd, "discriminator": sgd},
    )
    other.load_state_dict(wrappers.state_dict())
    with pytest.raises(NotImplementedError, match=r"optim_wrapper\['generator'\].update_params"):
        wrappers.update_params(torch.ones(1))
    with pytest.raises(
        ConfigError, match=r"^optim_wrapper.generatr: .* no such part, only generator"
    ):
        build_optim_wrapper(model, {"generatr": sgd})
    with pytest.raises(TypeError, match="expected a to be an OptimWrapper"):
        OptimWrapperDict(a=1)


def test_ones_own_constructor():
    model = nn.Linear(1, 1)

    class Constructor:
        def __init__(self, cfg, paramwise_cfg):
            self.cfg, self.paramwise_cfg = cfg, paramwise_cfg

        def __call__(self, model):
            optimizer = torch.optim.SGD(model.parameters(), lr=self.paramwise_cfg["rate"])
            return OptimWrapper(optimizer)

    cfg = {"constructor": Constructor, "optimizer": {}, "paramwise_cfg": {"rate": 7.0}}
    assert build_optim_wrapper(model, cfg).get_lr() == {"lr": [7.0]}
    with pytest.raises(ConfigError, match=r"^optim_wrapper.constructor: unknown"):
        build_optim_wrapper(model, {**cfg, "constructor": "LayerDecay"})


def test_an_optimiser_that_is_built_already():
    sgd = optimizer(3.0)
    wrapper = build_optim_wrapper(nn.Linear(1, 1), {"optimizer": sgd, "accumulative_counts": 2})
    assert wrapper.optimizer is sgd
    assert wrapper.accumulative_counts == 2
