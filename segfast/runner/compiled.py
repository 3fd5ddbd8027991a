"""torch.compile for the forward pass of training."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from segfast.errors import ConfigError
from segfast.models import BaseModel


def compile_forward(model: nn.Module, options: Any) -> str:
    """Compile what `model(...)` runs while it trains; validation, whose images vary in size, stays as it is.

    Args:
        model: not wrapped yet.
        options: True, or the arguments of torch.compile: dict(backend="inductor", mode="max-autotune", ...); None and
            False compile nothing.

    Returns:
        What the log should say, perhaps nothing.

    Raises:
        ConfigError: torch.compile does not take these options.
    """
    if options is None or options is False:
        return ""
    if options is not True and not isinstance(options, Mapping):
        problem = (
            f"expected True, or dict(backend=...) and so on for torch.compile, got {options!r}"
        )
        raise ConfigError("compile", problem)
    try:
        compiled = torch.compile(model._call_impl, **({} if options is True else options))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError("compile", " ".join(str(error).split())) from None

    def call(*args: Any, **kwargs: Any) -> Any:
        return (compiled if model.training else model._call_impl)(*args, **kwargs)

    # Where nn.Module.compile keeps its own: neither copies nor checkpoints of a module take it along.
    model._compiled_call_impl = call
    if getattr(type(model), "train_step", None) is not BaseModel.train_step:
        own = f"{type(model).__name__} has a train_step of its own"
        return f"compile: {own}, of which only what calls the model is compiled"
    return "the model is compiled: the first iterations are slow"
