"""Checkpoints: one plain dict of tensors, numbers and strings, written whole or not at all.

Every file opens with `torch.load(weights_only=True)`; nothing in it can execute.
"""

# SPDX-License-Identifier: Apache-2.0

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segfast.distributed.sharded import as_sharded
from segfast.errors import CheckpointError
from segfast.runner.atomic_file import write_atomically
from segfast.weight_files import load_checkpoint as load_checkpoint


def save_checkpoint(state: dict[str, Any], path: str | Path) -> None:
    """Write `state` to a temporary name, sync it to the disk, rename: a kill leaves the old file or the new one.

    Raises:
        OutputError: it cannot be written; what was there before still is.
    """
    write_atomically(Path(path), lambda file: torch.save(state, file))


def load_weights(
    model: nn.Module, state: dict[str, Any], source: str | Path, *, strict: bool = True
) -> list[str]:
    """Copy a checkpoint's weights into a model; a `module.` prefix that the model does not have is dropped.

    Args:
        model: on any device.
        state: a checkpoint, or its weights.
        source: for messages.
        strict: all keys and shapes have to be those of the model; else what does not fit stays as it was, a head for
            another number of classes, say.

    Returns:
        What did not fit, in words, one entry per key (empty when `strict`).

    Raises:
        CheckpointError: with `strict`, a shape differs (the text names the key and both shapes) or a key is missing;
            in any case, nothing fits.
    """
    own, weights = model.state_dict(), {}
    for key, value in dict(state.get("state_dict", state)).items():
        name = str(key)
        weights[name if name in own else name.removeprefix("module.")] = value
    shapes = {
        key: f"{key} is {_shape(value)} there but {_shape(own[key])} in the model"
        for key, value in weights.items()
        if key in own and _shape(value) != _shape(own[key])
    }
    if shapes and strict:
        raise CheckpointError(
            f"{source}: {next(iter(shapes.values()))} (hint: is num_classes the one it was trained with?)"
        )
    fitting = {
        key: as_sharded(value, own.get(key)) for key, value in weights.items() if key not in shapes
    }
    result = model.load_state_dict(fitting, strict=False)
    missing = [key for key in result.missing_keys if key not in shapes]
    unknown = result.unexpected_keys
    if strict and (missing or unknown):
        raise CheckpointError(
            f"{source} does not fit the model: {len(missing)} keys missing, {len(unknown)} unknown, the first is "
            f"{[*missing, *unknown][0]} (hint: is it a checkpoint of this config?)"
        )
    if own and not any(key in own for key in fitting):
        raise CheckpointError(
            f"{source}: none of its {len(weights)} weights fits the model, the first is {next(iter(weights), None)} "
            "(hint: are they those of a part, a backbone? its own `pretrained` or `encoder_weights` takes those)"
        )
    return [
        *shapes.values(),
        *(f"{key} is not there" for key in missing),
        *(f"{key} is not in the model" for key in unknown),
    ]


def _shape(value: Any) -> tuple[int, ...] | str:
    """Of a tensor; of anything else the type, which fits nothing but itself."""
    return tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__


def random_state() -> dict[str, Any]:
    """The state of all random generators of this process, as plain values."""
    state: Any = np.random.get_state()
    name, keys, position, has_gauss, gauss = state
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put all generators back to a saved state."""
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available():  # perhaps with more or fewer devices than before
        for device, saved in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(saved.cpu(), device)
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
