"""Loads pretrained weights from a local file into a network's encoder, or says why they do not fit."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segfast.errors import CheckpointError
from segfast.weight_files import load_checkpoint

_WRAPPERS = ("state_dict", "model_state_dict", "model")  # where checkpoints keep the weights
_PREFIXES = tuple(
    f"{wrapper}{part}"
    for wrapper in ("", "module.", "model.", "net.")
    for part in ("", "encoder.", "backbone.")
)
_CLASSIFIERS = ("classifier.", "fc.", "head.", "last_linear.", "head_dist.")
_ENCODERS = ("encoder", "backbone")


def load_encoder_weights(net: nn.Module, path: str | Path) -> None:
    """Load a file into `net.encoder` (or `net.backbone`).

    Prefixes such as `module.` or `encoder.` are stripped and an image classifier's last layers are
    left out; everything else has to match.

    Args:
        net: has a submodule `encoder` or `backbone`.
        path: what `load_checkpoint` reads: .safetensors, a state dict, or a checkpoint that holds one.

    Raises:
        CheckpointError: no such file, unreadable, no encoder, or keys or shapes that do not fit.
    """
    name = next((name for name in _ENCODERS if isinstance(getattr(net, name, None), nn.Module)), "")
    if not name:
        raise CheckpointError(
            f"encoder_weights {path}: {type(net).__name__} has no submodule encoder or backbone"
        )
    load_weights(getattr(net, name), path, f"{type(net).__name__}.{name}")


def load_weights(encoder: nn.Module, path: str | Path, owner: str) -> None:
    """As `load_encoder_weights`, into `encoder` itself.

    Args:
        encoder: what the weights are for.
        path: see there.
        owner: how messages call `encoder`.

    Raises:
        CheckpointError: see there.
    """
    path = Path(path).expanduser()
    target = encoder.state_dict()
    weights = _strip(_read(path), target)
    weights = {k: v for k, v in weights.items() if k in target or not k.startswith(_CLASSIFIERS)}
    problem = _mismatch(weights, target)
    if problem:
        raise CheckpointError(f"encoder_weights {path}: does not fit {owner}: {problem}")
    encoder.load_state_dict(weights, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name."""
    if not path.is_file():
        raise CheckpointError(f"encoder_weights {path}: no such file")
    try:
        found: Any = load_checkpoint(path, can_be_trusted=False)
    except CheckpointError as error:
        raise CheckpointError(f"encoder_weights {error}") from error.__cause__
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = {}
    if isinstance(found, Mapping):
        tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError(f"encoder_weights {path}: holds no state dict")
    return tensors


def _strip(weights: dict[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix under which most of the encoder's keys are found, and what lies outside."""
    views = (
        {
            key.removeprefix(prefix): value
            for key, value in weights.items()
            if key.startswith(prefix)
        }
        for prefix in _PREFIXES
    )
    return max(views, key=lambda view: len(view.keys() & target.keys()))


def _mismatch(weights: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    """What does not fit, in words; empty when everything does."""
    missing = [k for k in target if k not in weights and not k.endswith("num_batches_tracked")]
    unknown = [k for k in weights if k not in target]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(target)} weights are missing ({missing[0]}, ...)")
    if unknown:
        problems.append(f"{len(unknown)} are unknown to it ({unknown[0]}, ...)")
    for key, value in weights.items():
        if key in target and target[key].shape != value.shape:
            shapes = f"{tuple(value.shape)} in the file, {tuple(target[key].shape)} in the network"
            problems.append(f"{key} is {shapes}")
            break
    return "; ".join(problems)
