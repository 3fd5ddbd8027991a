"""Which types the config inside a checkpoint may name: a file that somebody sent must not choose what is called."""

# SPDX-License-Identifier: Apache-2.0
import contextlib
import inspect
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from segfast.datasets.transforms import BaseTransform
from segfast.errors import CheckpointError, ConfigError
from segfast.registry import guarded, import_dotted

_PACKAGES = (
    "segfast.models", "segfast.datasets", "segfast.integrations", "torch.nn", "torchvision.models", "timm",
    "segmentation_models_pytorch",
)  # fmt: skip
_FUNCTIONS = ("timm.create_model", "segmentation_models_pytorch.create_model")
_FUNCTION_MODULES = "torchvision.models."
# Keys whose values name something to call: `type`, `resize_type`, `feature_cls`, `collate_fn`, `norm_layer`.
_NAMING_KEY = re.compile(
    r"(^|_)(type|cls|class|constructor|factory|builder|fn|func|function|layer)s?$", re.IGNORECASE
)
# Arguments that would fetch or read files: the checkpoint itself holds all weights.
_WEIGHTS = {
    "pretrained": False, "pretrained_backbone": False, "checkpoint_path": "", "checkpoint": None,
    "pretrained_cfg": None, "pretrained_cfg_overlay": None, "weights": None, "weights_backbone": None,
    "encoder_weights": None,
    "backbone_weights": None, "pretrained_model_name_or_path": None, "pretrained_path": None, "weights_path": None,
}  # fmt: skip
# Names of models that timm fetches, or reads from a folder, by way of whatever passes them on.
_FETCHED = re.compile(r"(^|[^a-z])(hf[-_]hub|local[-_]dir):|://", re.IGNORECASE)


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
    if isinstance(entries.get("class_weight"), str):
        entries["class_weight"] = None  # a file, and for training only
    kind = tree.get("type")
    if not isinstance(kind, str) or "." not in kind:
        return entries
    _refuse_fetching(tree, kind, source)
    known = {key: value for key, value in _WEIGHTS.items() if key in entries or _takes(tree, key)}
    return {**entries, **known}


def _takes(cfg: Mapping, key: str) -> bool:
    """Whether what a config names has that argument, whose default may be the name of a file to fetch."""
    target = import_dotted(cfg["type"])
    if cfg["type"].startswith(_FUNCTION_MODULES) and getattr(target, "__name__", "") == "get_model":
        builders = import_dotted("torchvision.models.get_model_builder")
        with contextlib.suppress(ValueError, AttributeError):  # no such model, which it says itself
            target = builders(cfg.get("name"))
    try:
        return key in inspect.signature(target).parameters
    except (ValueError, TypeError):
        return False


def _refuse_fetching(tree: Any, kind: str, source: Any) -> None:
    """No argument of what is called may be a name that is fetched."""
    entries = tree.values() if isinstance(tree, Mapping) else tree
    for entry in entries:
        if isinstance(entry, (Mapping, list, tuple)):
            _refuse_fetching(entry, kind, source)
        elif isinstance(entry, str) and _FETCHED.search(entry):
            raise CheckpointError(
                f"{source}: the config inside gives {kind} the argument {entry!r}, which would fetch or read other "
                "files (hint: give a config of your own with --config; or --trust-checkpoint)"
            )


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
    imported = kind.rpartition(".")[0] in sys.modules and not kind.startswith("torch.")
    if not known and not imported:
        return False  # importing it would run it; of torch, networks live in torch.nn
    found = import_dotted(kind)
    if isinstance(found, type):
        return issubclass(found, (nn.Module, BaseTransform))
    return kind in _FUNCTIONS or (
        kind.startswith(_FUNCTION_MODULES)
        and getattr(found, "__module__", "").startswith(_FUNCTION_MODULES)
    )
