"""From the config of an optimiser wrapper, or of several, to the objects."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from segfast.errors import ConfigError
from segfast.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from segfast.runner.optim import OptimWrapper
from segfast.runner.optim_dict import OptimWrapperDict
from segfast.runner.param_groups import parameter_groups

for _name in (
    "SGD", "Adam", "AdamW", "Adamax", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Rprop", "ASGD", "LBFGS",
):  # fmt: skip
    OPTIMIZERS.register_module(module=getattr(torch.optim, _name))

_DEFAULT = ("DefaultOptimWrapperConstructor", "ForceDefaultOptimWrapperConstructor")
_SEVERAL = "MultiOptimWrapperConstructor"
Wrapper = OptimWrapper | OptimWrapperDict


def build_optim_wrapper(model: nn.Module, cfg: Any, path: str = "optim_wrapper") -> Wrapper:
    """Build the wrapper of a config.

    Args:
        model: its parameters are optimised.
        cfg: dict(type="OptimWrapper", optimizer=dict(type, lr, ...) or an optimiser, paramwise_cfg=..., and the
            wrapper's arguments); or a dict of such dicts by the name of the part of the model that each optimises;
            or a wrapper. `constructor` may name a class of your own: it is called with the rest of the config and
            `paramwise_cfg`, and the result with the model.
        path: dotted path of `cfg`, for messages.

    Raises:
        ConfigError: something in it is wrong, or missing.
    """
    if isinstance(cfg, (OptimWrapper, OptimWrapperDict)):
        return cfg
    if not isinstance(cfg, Mapping):
        raise ConfigError(path, f"expected dict(optimizer=dict(type=..., lr=...)), got {cfg!r}")
    options = dict(cfg)
    constructor = options.pop("constructor", None)
    if constructor not in (None, *_DEFAULT, _SEVERAL):
        return _by_constructor(constructor, model, options, path)
    if constructor == _SEVERAL or _holds_several(options):
        return _build_several(model, options, path)
    keep_frozen = constructor == "ForceDefaultOptimWrapperConstructor"
    return _build_one(model, options, keep_frozen, path)


def scale_lr(wrapper: Wrapper, auto_scale_lr: Mapping, batch_size: int) -> None:
    """Multiply every learning rate by the batch size over the one it was chosen for.

    Raises:
        ConfigError: `base_batch_size` is missing.
    """
    base = auto_scale_lr.get("base_batch_size")
    if not base:
        problem = "missing: the batch size that the learning rate was chosen for"
        raise ConfigError("auto_scale_lr.base_batch_size", problem)
    for group in wrapper.param_groups:
        group["lr"] *= batch_size / base


def _build_one(model: nn.Module, options: dict, keep_frozen: bool, path: str) -> OptimWrapper:
    """One optimiser over all parameters of a module."""
    paramwise = options.pop("paramwise_cfg", None) or {}
    optimizer = options.pop("optimizer", None)
    if not isinstance(optimizer, torch.optim.Optimizer):
        if not isinstance(optimizer, Mapping):
            raise ConfigError(f"{path}.optimizer", "expected dict(type=..., lr=...)")
        # Without rules frozen parameters come too, as upstream: a hook may unfreeze them.
        keep_frozen = keep_frozen or not paramwise
        groups = parameter_groups(model, optimizer, paramwise, keep_frozen=keep_frozen)
        optimizer = OPTIMIZERS.build(optimizer, path=f"{path}.optimizer", params=groups)
    elif paramwise:
        raise ConfigError(f"{path}.paramwise_cfg", "the optimizer is built already, it has groups")
    options.setdefault("type", "OptimWrapper")
    return OPTIM_WRAPPERS.build(options, path=path, optimizer=optimizer)


def _holds_several(options: dict) -> bool:
    """Whether every value is a wrapper or the config of one."""
    return bool(options) and all(
        isinstance(value, OptimWrapper) or (isinstance(value, Mapping) and "optimizer" in value)
        for value in options.values()
    )


def _build_several(model: nn.Module, options: dict, path: str) -> OptimWrapperDict:
    """Names are those of the model's parts: `generator`, `discriminator`."""
    wrappers: dict[str, Any] = {}
    for name, cfg in options.items():
        if isinstance(cfg, OptimWrapper):
            wrappers[name] = cfg
            continue
        part = getattr(model, name, None)
        if not isinstance(part, nn.Module):
            children = ", ".join(child for child, _ in model.named_children())
            raise ConfigError(f"{path}.{name}", f"the model has no such part, only {children}")
        wrappers[name] = build_optim_wrapper(part, cfg, f"{path}.{name}")
    return OptimWrapperDict(**wrappers)


def _by_constructor(constructor: Any, model: nn.Module, options: dict, path: str) -> Wrapper:
    """A class of the user's that builds the wrapper."""
    if isinstance(constructor, str):
        try:
            constructor = OPTIM_WRAPPER_CONSTRUCTORS.get(constructor)
        except ConfigError as error:
            raise error.under(f"{path}.constructor") from None
    paramwise = options.pop("paramwise_cfg", None)
    return constructor(options, paramwise)(model)
