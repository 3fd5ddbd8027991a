"""Sharded tensors become whole ones for a checkpoint, and whole ones shards again; plain tensors stay plain."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segfast.distributed.world import is_first


def is_sharded(value: Any) -> bool:
    """Whether it is one of torch's DTensors, whose module takes half a second to import."""
    return hasattr(value, "full_tensor")


def whole(state: Any) -> Any:
    """A state dict as the first process writes it: whole tensors on the CPU. All processes have to call this.

    The others keep what they have: one copy of a large model is enough.
    """
    if isinstance(state, Mapping):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(whole(value) for value in state)
    if not isinstance(state, Tensor):
        return state
    gathered = state.full_tensor() if is_sharded(state) else state  # type: ignore[attr-defined]
    return gathered.cpu() if is_first() else state


def as_sharded(value: Any, like: Any) -> Any:
    """A whole tensor dealt out as `like` is; anything else as it is."""
    if not is_sharded(like) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def optimizer_state(state: dict, optimizer: Any) -> dict:
    """A whole state of an optimiser, for one whose parameters may be sharded."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    indices = [i for group in state["param_groups"] for i in group["params"]]
    by_index = dict(zip(indices, parameters, strict=False))
    entries = {
        index: {name: as_sharded(value, by_index.get(index)) for name, value in entry.items()}
        for index, entry in state["state"].items()
    }
    return {**state, "state": entries}
