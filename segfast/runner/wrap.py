"""A model becomes one of several processes' models: batch norm over all of them, gradients exchanged."""

# SPDX-License-Identifier: Apache-2.0

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from segfast.distributed import world
from segfast.errors import ConfigError
from segfast.models import BaseModel
from segfast.models.distributed import unwrapped
from segfast.models.initial_weights import init_parts
from segfast.registry import MODELS

_DEFAULT = "MMDistributedDataParallel"


def wrap_model(
    model: nn.Module,
    cfg: Mapping | None,
    sync_bn: str | bool | None,
    find_unused_parameters: bool,
) -> nn.Module:
    """The model with batch norm as the processes need it and, where there are several, in its wrapper.

    Args:
        model: on its device.
        cfg: `model_wrapper_cfg`: dict(type="MMDistributedDataParallel" or "FSDP", and their arguments).
        sync_bn: on CUDA, turn all batch norm into SyncBatchNorm; elsewhere there is none, and a warning says so.
        find_unused_parameters: for models of which some parameters get no gradient in some iterations.

    Raises:
        ConfigError: the wrapper would pass over the model's own `train_step`.
    """
    on_cuda = next((p.is_cuda for p in model.parameters()), False)
    if world()[1] > 1 and not on_cuda and (sync_bn or _has_sync_bn(model)):
        warnings.warn(
            "SyncBN exists on CUDA only: batch norm looks at each process's own samples",
            stacklevel=2,
        )
    if world()[1] == 1 or not on_cuda:
        model = without_sync_bn(model)
    elif sync_bn:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if world()[1] == 1 or not any(p.requires_grad for p in model.parameters()):
        return model
    if type(model).train_step is not BaseModel.train_step:  # type: ignore[attr-defined]
        raise ConfigError(
            "model",
            f"{type(model).__name__} has a train_step of its own, which several processes cannot run (hint: start one)",
        )
    options: dict[str, Any] = {"type": _DEFAULT, **(cfg or {})}
    if options["type"] == _DEFAULT:
        # Before torch 2.13 `forward_sync_buffers` was a part of `broadcast_buffers`.
        known = inspect.signature(DistributedDataParallel).parameters
        name = next(n for n in ("forward_sync_buffers", "broadcast_buffers") if n in known)
        if "broadcast_buffers" not in options:
            options[name] = False
        options.setdefault("find_unused_parameters", find_unused_parameters)
    return MODELS.build(options, path="model_wrapper_cfg", module=model)


def shards(cfg: Mapping | None) -> bool:
    """Whether `wrap_model` deals the parameters out: they have to be initialised before."""
    return world()[1] > 1 and (cfg or {}).get("type") == "FSDP"


def init_weights(model: nn.Module) -> None:
    """The model's own `init_weights`, or else its parts'; the first process's weights for all of them."""
    bare = unwrapped(model)
    if hasattr(bare, "init_weights"):
        bare.init_weights()
    else:
        init_parts(bare)
    if world()[1] > 1:
        for tensor in (*bare.parameters(), *bare.buffers()):
            torch.distributed.broadcast(tensor.data, src=0)


def _has_sync_bn(model: nn.Module) -> bool:
    return any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of inputs of any rank, as SyncBatchNorm's are."""

    def _check_input_dim(self, input: torch.Tensor) -> None:  # torch's own name
        pass


def without_sync_bn(model: nn.Module) -> nn.Module:
    """SyncBatchNorm, which exists on CUDA only and means nothing in one process, becomes batch norm, in place."""
    for name, child in model.named_children():
        setattr(model, name, without_sync_bn(child))
    if not isinstance(model, nn.SyncBatchNorm):
        return model
    plain = _BatchNorm.__new__(_BatchNorm)
    plain.__dict__.update(model.__dict__)  # the same parameters, statistics and hooks
    return plain


def same_buffers(model: nn.Module) -> None:
    """The first process's running statistics for all of them, before they evaluate.

    In training each process keeps its own, which nothing reads; the first one's are those that checkpoints hold.
    """
    if world()[1] == 1:
        return
    for buffer in unwrapped(model).buffers():
        torch.distributed.broadcast(buffer, src=0)
