"""paramwise_cfg beside MMEngine's constructor: every parameter has the same settings."""

# SPDX-License-Identifier: Apache-2.0

import logging

import pytest
import torch
from torch import nn

pytest.importorskip("mmengine")
pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.optim import build_optim_wrapper as build_theirs
from mmengine.optim.optimizer import default_constructor

from segfast.runner import build_optim_wrapper

# Deformable convolutions are looked for in mmcv's compiled half, which is not there.
default_constructor.mmcv_full_available = lambda: False
logging.getLogger("mmengine").setLevel(logging.ERROR)
PARTS = ("backbone", "neck", "decode_head", "norm", "bn", "layer")
MODULES = {
    "linear": lambda: nn.Linear(2, 2),
    "conv": lambda: nn.Conv2d(4, 2, 1),
    "depthwise": lambda: nn.Conv2d(2, 2, 3, groups=2, bias=False),
    "batch": lambda: nn.BatchNorm2d(2),
    "instance": lambda: nn.InstanceNorm2d(2, affine=True),
    "group": lambda: nn.GroupNorm(1, 2),
    "layer": lambda: nn.LayerNorm(2),
}
multiplier = st.sampled_from([0.0, 0.1, 1.0, 2.5])


class Scaled(nn.Module):
    """A module with a parameter of its own beside its child."""

    def __init__(self, child):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 2))
        self.gamma = nn.Parameter(torch.ones(2))
        self.child = child


@st.composite
def models(draw):
    """Named modules, some nested, some parameters frozen."""
    net = nn.Module()
    for part in draw(st.lists(st.sampled_from(PARTS), min_size=1, unique=True)):
        children = draw(st.lists(st.sampled_from(list(MODULES)), min_size=1, max_size=3))
        sequence = nn.Sequential(*(MODULES[child]() for child in children))
        net.add_module(part, Scaled(sequence) if draw(st.booleans()) else sequence)
    for parameter in list(net.parameters())[1:]:
        parameter.requires_grad_(draw(st.integers(0, 4)) > 0)
    return net


rules = st.fixed_dictionaries(
    {},
    optional={
        "custom_keys": st.dictionaries(
            st.sampled_from([*PARTS, "back", "0", ".0.", "bias", "weight", "head.0", "child"]),
            st.fixed_dictionaries({}, optional={"lr_mult": multiplier, "decay_mult": multiplier}),
            max_size=4,
        ),
        "norm_decay_mult": multiplier,
        "bias_lr_mult": multiplier,
        "bias_decay_mult": multiplier,
        "dwconv_decay_mult": multiplier,
        "flat_decay_mult": multiplier,
    },
)


def settings_by_name(net, wrapper):
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"], group["momentum"])
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
    }


@settings(deadline=None, max_examples=300)
@given(models(), rules)
def test_every_parameter_has_mmengines_settings(net, paramwise):
    sgd = {"type": "SGD", "lr": 0.3, "weight_decay": 0.02, "momentum": 0.9}
    ours = build_optim_wrapper(net, {"optimizer": sgd, "paramwise_cfg": paramwise})
    theirs = build_theirs(net, {"optimizer": dict(sgd), "paramwise_cfg": paramwise})
    assert settings_by_name(net, ours) == settings_by_name(net, theirs)
    if len(theirs.optimizer.param_groups) > 1 and len(ours.optimizer.param_groups) > 1:
        assert ours.get_lr()["base_lr"] == theirs.get_lr()["base_lr"]


def test_ours_has_a_group_for_each_setting_theirs_for_each_parameter():
    """On purpose: torch's foreach optimisers launch their kernels once for each group."""
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    cfg = {"optimizer": {"type": "SGD", "lr": 1.0}, "paramwise_cfg": {"bias_lr_mult": 2.0}}
    groups = build_optim_wrapper(net, cfg).optimizer.param_groups
    assert [len(group["params"]) for group in groups] == [5, 5]
    assert len(build_theirs(net, cfg).optimizer.param_groups) == 10
