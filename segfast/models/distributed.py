"""A model in several processes, called as one in a single process is."""

# SPDX-License-Identifier: Apache-2.0
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segfast.distributed import world
from segfast.models.base import run_forward
from segfast.registry import MODELS

_METHODS = ("loss", "predict")  # that call a module's parts without going through its `forward`


class _Wrapper:
    """The steps of a wrapped `BaseModel`: its own preprocessor and sum of losses, the wrapper's forward pass."""

    module: Any

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """As `BaseModel.train_step`; `optim_wrapper.optim_context` may hold back the exchange of gradients."""
        with optim_wrapper.optim_context(self):
            data = self.module.data_preprocessor(data, True)
            losses = run_forward(self, data, mode="loss")  # type: ignore[arg-type]
        total, log_vars = self.module.parse_losses(losses)
        optim_wrapper.update_params(total)
        return log_vars

    def val_step(self, data: Any) -> Any:
        """The model's own: there are no gradients to exchange."""
        return self.module.val_step(data)

    def test_step(self, data: Any) -> Any:
        """The model's own."""
        return self.module.test_step(data)


@MODELS.register_module()
class MMDistributedDataParallel(_Wrapper, DistributedDataParallel):
    """torch's DistributedDataParallel with the steps of a `BaseModel`.

    The forward pass of training goes through this wrapper, which averages gradients over the processes. Arguments are
    those of torch's class.
    """


@MODELS.register_module()
class FSDP(_Wrapper, nn.Module):
    """Parameters, gradients and optimiser state dealt out over the processes, by torch's `fully_shard` (FSDP2).

    A unit is gathered for its forward and backward pass and freed again. The first process's weights count. Gradients
    are exchanged after every backward pass, also within an accumulation group: what is accumulated stays sharded.

    Args:
        module: the model, on its device; sharded in place.
        min_params: a part of the model becomes a unit when it has that many parameters outside the units within it.
        reshard_after_forward: free a unit between forward and backward: less memory, more traffic.
        param_dtype: "bfloat16" to gather and compute in it; the shards stay as they are.
        reduce_dtype: dtype in which gradients are averaged; None for `param_dtype`.
    """

    def __init__(
        self,
        module: nn.Module,
        min_params: int = 1_000_000,
        reshard_after_forward: bool = True,
        param_dtype: str | None = None,
        reduce_dtype: str | None = None,
    ) -> None:
        """Shard."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        super().__init__()
        self.module: Any = module
        for tensor in (*module.parameters(), *module.buffers()):
            torch.distributed.broadcast(tensor.data, src=0)
        options = {
            "mesh": init_device_mesh(next(module.parameters()).device.type, (world()[1],)),
            "reshard_after_forward": reshard_after_forward,
            "mp_policy": MixedPrecisionPolicy(
                param_dtype=getattr(torch, param_dtype or "", None),
                reduce_dtype=getattr(torch, reduce_dtype or "", None),
            ),
        }
        for child in module.children():
            _shard_parts(child, min_params, options)
        fully_shard(module, **options)  # type: ignore[call-overload]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's."""
        return self.module(*args, **kwargs)


def _shard_parts(module: nn.Module, min_params: int, options: dict) -> int:
    """Make units of a module's large parts, innermost first; the number of parameters that are in none."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    rest = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    rest += sum(_shard_parts(child, min_params, options) for child in module.children())
    is_container = type(module).forward is nn.Module.forward  # a ModuleList is never called
    if rest < min_params or is_container:
        return rest
    fully_shard(module, **options)  # type: ignore[call-overload]
    for name in _METHODS:
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)
    return 0


def unwrapped(model: Any) -> Any:
    """The model itself, whatever wraps it for several processes."""
    return model.module if isinstance(model, (_Wrapper, DistributedDataParallel)) else model
