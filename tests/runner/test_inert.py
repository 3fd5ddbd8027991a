"""Checkpoints with pickled objects: the plain part is read, nothing is executed."""

# SPDX-License-Identifier: Apache-2.0

import os

import numpy as np
import pytest
import torch

from segfast.errors import CheckpointError
from segfast.runner import load_checkpoint


def test_arrays_are_left_out(tmp_path):
    state = {"state_dict": {"w": torch.ones(2)}, "meta": {"iter": 3, "palette": [np.ones(2), 7]}}
    torch.save({**state, "hub": np.arange(3)}, tmp_path / "a.pth")
    read = load_checkpoint(tmp_path / "a.pth")
    assert read["meta"] == {"iter": 3, "palette": [7]}
    assert "hub" not in read
    assert torch.equal(read["state_dict"]["w"], torch.ones(2))


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_executes(tmp_path):
    torch.save({"state_dict": {}, "x": Evil(str(tmp_path / "made"))}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "made").exists()


def test_getattr_is_not_getattr(tmp_path):
    class Method:
        def __reduce__(self):
            return getattr, ("text", "upper")

    torch.save({"state_dict": {"w": 1}, "x": [Method()]}, tmp_path / "a.pth")
    assert load_checkpoint(tmp_path / "a.pth") == {"state_dict": {"w": 1}, "x": []}
