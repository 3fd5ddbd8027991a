"""Checkpoints of MMEngine hold pickled objects beside the weights: read them without making any.

Every name that such a file uses and torch does not allow stands for `Inert` here: it can be called, built and filled,
and does nothing. What it stood for is left out; tensors, numbers and strings come through.
"""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

# The log's buffers, the arrays and bound methods in them, and plain containers of configs.
_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmengine.config.config.ConfigDict",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
    "builtins.getattr",
    "__builtin__.getattr",
)


class Inert:
    """Takes any arguments and any state, keeps none."""

    def __new__(cls, *_: Any, **__: Any) -> "Inert":
        """An object like all others."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Keep nothing."""

    def __setstate__(self, state: Any) -> None:
        """Keep nothing."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep nothing."""

    def __hash__(self) -> int:
        """It may be a key."""
        return 0


def inert_globals() -> AbstractContextManager:
    """Within it `torch.load(weights_only=True)` reads those names as `Inert`."""
    return torch.serialization.safe_globals([(Inert, name) for name in _NAMES])


def without_inert(value: Any) -> Any:
    """A copy without anything inert: entries of dicts and lists that are, or hold nothing else, are left out."""
    if isinstance(value, Mapping):
        entries = {key: without_inert(entry) for key, entry in value.items()}
        return {key: entry for key, entry in entries.items() if not _is_inert(key, entry)}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(without_inert(entry) for entry in value if not isinstance(entry, Inert))
    return value


def _is_inert(key: Any, entry: Any) -> bool:
    return isinstance(key, Inert) or isinstance(entry, Inert)
