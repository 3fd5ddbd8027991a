"""Where pictures and numbers go: a folder, TensorBoard."""

# SPDX-License-Identifier: Apache-2.0

import json
import sys
import types

import numpy as np
import pytest
import torch

from segfast.errors import UserError
from segfast.registry import VISBACKENDS
from segfast.visualization import LocalVisBackend, TensorboardVisBackend

PICTURE = np.zeros((4, 5, 3), dtype=np.uint8)


def test_local_numbers(tmp_path):
    backend = LocalVisBackend(tmp_path / "deep")
    backend.add_scalars({"loss": torch.tensor(0.5), "lr": 0.1}, step=3)
    backend.add_scalars({"mIoU": np.float32(2)}, step=4)
    backend.close()
    lines = (tmp_path / "deep" / "scalars.json").read_text().splitlines()
    expected = [{"loss": 0.5, "lr": 0.1, "step": 3}, {"mIoU": 2.0, "step": 4}]
    assert [json.loads(line) for line in lines] == expected
    assert backend.add_image("a", PICTURE, 1).name == "a_1.png"


def test_tensorboard_is_named_when_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        VISBACKENDS.build({"type": "TensorboardVisBackend", "save_dir": str(tmp_path)})


def test_tensorboard_calls(tmp_path, monkeypatch):
    calls = []

    class SummaryWriter:
        def __init__(self, folder):
            calls.append(folder)

        def __getattr__(self, name):
            return lambda *args, **options: calls.append((name, args, options))

    fake = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    backend = TensorboardVisBackend(tmp_path)
    backend.add_image("a", PICTURE, 7)
    backend.add_scalars({"loss": torch.tensor(0.5)}, step=3)
    backend.close()
    assert calls == [
        str(tmp_path),
        ("add_image", ("a", PICTURE, 7), {"dataformats": "HWC"}),
        ("add_scalar", ("loss", 0.5, 3), {}),
        ("flush", (), {}),
        ("close", (), {}),
    ]


def test_tensorboard_itself(tmp_path):
    pytest.importorskip("tensorboard")
    backend = TensorboardVisBackend(tmp_path)
    backend.add_image("a", PICTURE, 7)
    backend.add_scalars({"loss": torch.tensor(0.5)}, step=3)
    backend.close()
    assert list(tmp_path.glob("events.out.tfevents.*"))
