"""Turn a list of samples into a batch: lists of tensors (pseudo) or stacked tensors (default)."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils.data import default_collate as torch_default_collate

from segfast.registry import FUNCTIONS
from segfast.structures import BaseDataElement


@FUNCTIONS.register_module()
def pseudo_collate(batch: Sequence) -> Any:
    """Batch samples without touching their leaves: tensors, arrays and numbers stay the objects they are.

    Args:
        batch: samples of one structure (mappings, sequences, leaves).

    Returns:
        The samples' structure with N leaves in place of each leaf: a list, or a tuple for leaves of a sequence. A
        tuple becomes a list; mappings take the first sample's keys.

    Raises:
        RuntimeError: sequences of unequal length inside the samples.
        KeyError: a later sample lacks a key of the first one.
    """
    return _collate(batch, lambda leaves: leaves)


@FUNCTIONS.register_module()
def default_collate(batch: Sequence) -> Any:
    """Batch samples and stack their leaves as torch does; strings and data elements stay as they are.

    Args:
        batch: samples of one structure (mappings, sequences, leaves).

    Returns:
        The samples' structure with a stacked tensor in place of each tensor, array or number.

    Raises:
        RuntimeError: sequences of unequal length inside the samples, or unequal tensor shapes.
        KeyError: a later sample lacks a key of the first one.
    """
    return _collate(batch, lambda leaves: torch_default_collate(list(leaves)))


def _collate(batch: Sequence, batch_leaves: Callable[[Sequence], Any]) -> Any:
    first = batch[0]
    if isinstance(first, BaseDataElement | str | bytes):
        return batch
    if isinstance(first, Mapping):
        by_key = {key: _collate([item[key] for item in batch], batch_leaves) for key in first}
        return _like(type(first), by_key)
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(_collate(column, batch_leaves) for column in _columns(batch)))
    if isinstance(first, Sequence):
        columns = [_collate(column, batch_leaves) for column in _columns(batch)]
        return columns if isinstance(first, tuple) else _like(type(first), columns)
    return batch_leaves(batch)


def _columns(batch: Sequence) -> list[tuple]:
    if any(len(item) != len(batch[0]) for item in batch):
        raise RuntimeError("each element in list of batch should be of equal size")
    return list(zip(*batch, strict=True))


def _like(kind: type, columns: Any) -> Any:
    """The same container type where it can be made from its plain counterpart."""
    try:
        return kind(columns)
    except TypeError:
        return columns
