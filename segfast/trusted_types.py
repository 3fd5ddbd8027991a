"""Which types the config inside a checkpoint may name: a file that somebody sent must not choose what is called."""

# SPDX-License-Identifier: Apache-2.0
import contextlib
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from segfast.datasets.transforms import BaseTransform
from segfast.errors import CheckpointError, ConfigError
from segfast.registry import guarded, import_dotted

_PACKAGES = ("segfast", "torch.nn", "torchvision.models", "timm", "segmentation_models_pytorch")
_FUNCTIONS = ("timm.create_model", "segmentation_models_pytorch.create_model")
_FUNCTION_MODULES = "torchvision.models."
# Keys whose values name something to call: `type`, `resize_type`, `feature_cls`, `collate_fn`, `norm_layer`.
_NAMING_KEY = re.compile(
    r"(^|_)(type|cls|class|constructor|factory|builder|fn|func|function|layer)s?$", re.IGNORECASE
)
# Arguments that would fetch or read files: the checkpoint itself holds all weights.
_WEIGHTS = {
    "pretrained": False, "checkpoint_path": "", "pretrained_cfg": None, "pretrained_cfg_overlay": None,
    "weights": None, "weights_backbone": None, "encoder_weights": None,
}  # fmt: skip


def checked(tree: Any, source: Any) -> Any:
    """A copy of a config tree whose dotted types are networks or transforms, and read no further file.

    Registered names are always allowed. A dotted path must lead to a subclass of `torch.nn.Module` or `BaseTransform`
    (or to one of a few functions that make networks), in a package that is known or a module that is imported already.
    It is looked at under every key that names something to call, not under `type` alone; what is built while
    `only_networks` holds is looked at again, whatever its key.

    Raises:
        CheckpointError: another type; the text names it, and what to do.
    """
    if isinstance(tree, (list, tuple)):
        return [checked(entry, source) for entry in tree]
    if not isinstance(tree, Mapping):
        return tree
    for key, value in tree.items():
        if _NAMING_KEY.search(str(key)):
            for name in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(name, str) and "." in name:
                    _refuse_others(name, source)
    entries = {key: checked(entry, source) for key, entry in tree.items()}
    kind = tree.get("type")
    if not isinstance(kind, str) or "." not in kind:
        return entries
    return {key: _WEIGHTS.get(key, entry) for key, entry in entries.items()}


def only_networks(source: Any, trusted: bool = False) -> AbstractContextManager:
    """Within it nothing but networks and transforms can be built from a dotted path, see `checked`."""
    if trusted:
        return contextlib.nullcontext()
    return guarded(lambda name: _refuse_others(name, source))


def _refuse_others(kind: str, source: Any) -> None:
    try:
        allowed = _is_allowed(kind)
    except ConfigError as error:
        raise CheckpointError(f"{source}: the config inside names {kind}: {error}") from None
    if not allowed:
        raise CheckpointError(
            f"{source}: the config inside would call {kind}, no network of {', '.join(_PACKAGES)}, nor of a module "
            "that is imported (hint: give a config of your own with --config; or --trust-checkpoint, if you trust who "
            "made the file)"
        )


def _is_allowed(kind: str) -> bool:
    known = kind.startswith(tuple(f"{package}." for package in _PACKAGES))
    if not known and kind.rpartition(".")[0] not in sys.modules:
        return False  # importing it would run it
    found = import_dotted(kind)
    if isinstance(found, type):
        return issubclass(found, (nn.Module, BaseTransform))
    return kind in _FUNCTIONS or (
        kind.startswith(_FUNCTION_MODULES)
        and getattr(found, "__module__", "").startswith(_FUNCTION_MODULES)
    )
