"""paramwise_cfg: which rule a parameter falls under, and what is refused."""

# SPDX-License-Identifier: Apache-2.0

import pytest
from torch import nn

from segfast.errors import ConfigError
from segfast.runner.param_groups import parameter_groups

SGD = {"type": "SGD", "lr": 1.0, "weight_decay": 0.5}


class Net(nn.Module):
    """One parameter, or module, of every kind that a rule knows."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(nn.init.zeros_(nn.Linear(3, 1).weight[0].detach().clone()))
        self.conv = nn.Conv2d(4, 2, 1)
        self.depthwise = nn.Conv2d(2, 2, 1, groups=2)
        self.norm = nn.BatchNorm2d(2)
        self.layer_norm = nn.LayerNorm(2)
        self.head = nn.Linear(2, 1)


def settings(paramwise, **options):
    """Parameter name -> (lr, weight_decay)."""
    net = Net()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    found = {}
    for group in parameter_groups(net, SGD, paramwise, **options):
        for parameter in group["params"]:
            found[names[id(parameter)]] = (group.get("lr", 1.0), group.get("weight_decay", 0.5))
    assert set(found) == set(names.values())
    return {name: value for name, value in found.items() if value != (1.0, 0.5)}


@pytest.mark.parametrize(("paramwise", "expected"), [
    ({}, {}),
    ({"norm_decay_mult": 0.0}, {f"{n}.{p}": (1.0, 0.0) for n in ("norm", "layer_norm") for p in ("weight", "bias")}),
    ({"bias_lr_mult": 2.0}, {f"{n}.bias": (2.0, 0.5) for n in ("conv", "depthwise", "head")}),  # not those of norms
    ({"bias_decay_mult": 0.0}, {f"{n}.bias": (1.0, 0.0) for n in ("conv", "depthwise", "head", "norm", "layer_norm")}),
    ({"bias_decay_mult": 0.0, "norm_decay_mult": 2.0},
     {**{f"{n}.bias": (1.0, 0.0) for n in ("conv", "depthwise", "head")},
      **{f"{n}.{p}": (1.0, 1.0) for n in ("norm", "layer_norm") for p in ("weight", "bias")}}),
    ({"dwconv_decay_mult": 0.0}, {"depthwise.weight": (1.0, 0.0), "depthwise.bias": (1.0, 0.0)}),
    ({"flat_decay_mult": 0.0},
     {n: (1.0, 0.0) for n in ("scale", "conv.bias", "depthwise.bias", "norm.weight", "norm.bias", "layer_norm.weight",
                              "layer_norm.bias", "head.bias")}),
    ({"custom_keys": {"conv": {"lr_mult": 0.1}, "norm": {"decay_mult": 0.0}, "layer_norm": {"lr_mult": 3.0}}},
     {"conv.weight": (0.1, 0.5), "conv.bias": (0.1, 0.5), "norm.weight": (1.0, 0.0), "norm.bias": (1.0, 0.0),
      "layer_norm.weight": (3.0, 0.5), "layer_norm.bias": (3.0, 0.5)}),
    ({"custom_keys": {"head": {"lr_mult": 0.1}}, "bias_lr_mult": 2.0},  # a custom key ends the search
     {"head.weight": (0.1, 0.5), "head.bias": (0.1, 0.5), "conv.bias": (2.0, 0.5), "depthwise.bias": (2.0, 0.5)}),
    ({"custom_keys": {"head": {"lr_mult": 0.1}}, "bias_decay_mult": 0.0, "force_default_settings": True},
     {"head.weight": (0.1, 0.5), "head.bias": (0.1, 0.0), "conv.bias": (1.0, 0.0), "depthwise.bias": (1.0, 0.0),
      "norm.bias": (1.0, 0.0), "layer_norm.bias": (1.0, 0.0)}),
    ({"custom_keys": {".scale": {"lr_mult": 5.0}}}, {"scale": (5.0, 0.5)}),  # names begin with a dot at the top
])  # fmt: skip
def test_rules(paramwise, expected):
    assert settings(paramwise) == expected


def test_of_equally_long_keys_the_alphabet_decides():
    keys = {"weight": {"lr_mult": 2.0}, "linear": {"lr_mult": 3.0}}
    net = nn.ModuleDict({"linear": nn.Linear(1, 1)})
    groups = parameter_groups(net, SGD, {"custom_keys": keys})
    assert [(group["lr"], len(group["params"])) for group in groups] == [(3.0, 2)]


def test_other_settings_of_a_custom_key_reach_the_group():
    (group,) = parameter_groups(nn.Linear(1, 1), SGD, {"custom_keys": {"": {"momentum": 0.1}}})
    assert group["momentum"] == 0.1


def test_equal_settings_share_a_group_and_shared_parameters_count_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[1].weight = net[0].weight
    groups = parameter_groups(net, SGD, {"norm_decay_mult": 0.0})
    assert [len(group["params"]) for group in groups] == [3, 2]


def test_frozen_parameters():
    net = nn.Linear(1, 1)
    net.bias.requires_grad_(False)
    rules = {"custom_keys": {"bias": {"lr_mult": 9.0}}}
    (group,) = parameter_groups(net, SGD, rules)
    assert group["params"] == [net.weight]
    (group,) = parameter_groups(net, SGD, rules, keep_frozen=True)
    assert len(group["params"]) == 2  # with the optimiser's own settings
    net.weight.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"^model: has no trainable parameters"):
        parameter_groups(net, SGD, rules, keep_frozen=True)


@pytest.mark.parametrize(("paramwise", "text"), [
    ({"custom_key": {}}, r"paramwise_cfg.custom_key: unknown \(did you mean custom_keys"),
    ({"norm_decay_mult": 0.0}, r"paramwise_cfg.norm_decay_mult: multiplies optim_wrapper.optimizer.weight_decay, which"),
    ({"custom_keys": {"a": {"decay_mult": 0.0}}}, r"custom_keys.a.decay_mult: multiplies"),
    ({"custom_keys": ["a"]}, r"custom_keys: expected a dict of dicts"),
    ([], r"paramwise_cfg: expected a dict"),
])  # fmt: skip
def test_what_is_refused(paramwise, text):
    with pytest.raises(ConfigError, match=text):
        parameter_groups(nn.Linear(1, 1), {"lr": 1.0}, paramwise)
