"""Read a file of weights safely: whole, as it was written, and without making any object."""

# SPDX-License-Identifier: Apache-2.0

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from segfast.errors import CheckpointError
from segfast.weight_files.inert import inert_globals, without_inert

_BEGINNINGS = (b"PK", b"\x80")  # a zip file, a pickle


def load_checkpoint(
    path: str | Path, *, trust: bool = False, can_be_trusted: bool = True
) -> dict[str, Any]:
    """Read a checkpoint safely, its checksums compared; of MMEngine's files the pickled objects are left out.

    Args:
        path: written by segfast, MMEngine or torch; or `.safetensors`, whose tensors become `state_dict`.
        trust: unpickle whatever the file holds. Danger: such a file can run any program as you.
        can_be_trusted: whether the caller has a way to say `trust`, for messages.

    Returns:
        What it holds, tensors on the CPU: a GPU that trains has no room for a second set.

    Raises:
        CheckpointError: the file is missing, damaged, or holds more than plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}")
    try:
        if path.suffix == ".safetensors":
            return {"state_dict": load_file(path)}
        _check_beginning(path)
        _compare_checksums(path)
        state = _load(path, trust)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of tensors and plain values: {_refusal(error, can_be_trusted)}"
        ) from None
    except Exception as error:  # of a damaged file: pickle, zip, runtime and other errors
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise  # which says nothing about the file
        reason = _without_advice(str(error)) or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of tensors and plain values: {reason}"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path} holds a {type(state).__name__}, expected a dict with 'state_dict'"
        )
    for name in ("state_dict", "meta"):
        if not isinstance(state.get(name, {}), dict):
            raise CheckpointError(
                f"{path}: its {name!r} is a {type(state[name]).__name__}, expected a dict"
            )
    return state


def _check_beginning(path: Path) -> None:
    """Raise for what torch.save never wrote, a text or a picture, of which torch.load says strange things."""
    with open(path, "rb") as file:
        start = file.read(262)
    if not start.startswith(_BEGINNINGS) and start[257:] != b"ustar":
        what = f"it begins with {start[:8]!r}" if start else "it is empty"
        raise ValueError(f"no file that torch.save wrote, {what}")


def _compare_checksums(path: Path) -> None:
    """Raise if a record is not what was written: torch.save stores the CRC-32 of each, torch.load ignores it."""
    if not zipfile.is_zipfile(path):
        return  # torch.save before 1.6; torch.load says what is wrong with anything else
    with zipfile.ZipFile(path) as file:
        if sum(record.file_size for record in file.infolist()) > path.stat().st_size:
            raise ValueError("its records are compressed, or claim more bytes than it has")
        damaged = file.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of its record {damaged} is wrong, the file is damaged")


def _refusal(error: pickle.UnpicklingError, can_be_trusted: bool) -> str:
    """What torch would not read, in a line."""
    name = re.search(r"GLOBAL ([\w.]+)", str(error))
    if name is None:
        return _without_advice(str(error)) or "torch cannot read it"
    hint = (
        "If you trust who made the file: --trust-checkpoint, or trust_checkpoint=True (hint: safer is to ask them for "
        "the weights as .safetensors)"
    )
    if not can_be_trusted:
        hint = "(hint: ask who made it for the weights alone, as .safetensors or a state dict)"
    return (
        f"it holds more, reading it would call {name[1]}, and could run anything; refused. {hint}"
    )


def _without_advice(text: str) -> str:
    """The first line of an error, without torch's words on how to unpickle the file all the same."""
    if "weights_only" not in text:
        return (text.splitlines() or [""])[0]
    if "TorchScript" in text:
        return "it is a TorchScript archive, which is a program (hint: save its state_dict)"
    reason = re.search(r"WeightsUnpickler error: ([^\n]+)", text)
    return f"torch cannot read it ({reason[1].strip()})" if reason else "torch cannot read it"


def _load(path: Path, trust: bool) -> Any:
    """What the file holds; a second try leaves out what is no plain data but known to be harmless."""
    if trust:
        return torch.load(path, map_location="cpu", weights_only=False)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        with inert_globals():
            return without_inert(torch.load(path, map_location="cpu", weights_only=True))
