"""Checkpoints that MMEngine's Runner wrote: their weights load here."""

# SPDX-License-Identifier: Apache-2.0

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmengine")
from mmengine.model import BaseModel as TheirModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner as TheirRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "runner"))
from toys import ToyModel, toy_config

from segfast.errors import CheckpointError
from segfast.runner import Runner, load_checkpoint


class TheirToy(TheirModel):
    """ToyModel's parameters."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        return {"loss": self.layer(torch.stack(list(inputs))).square().mean()}


def test_weights_of_theirs_load_and_runs_of_theirs_do_not_resume(tmp_path, monkeypatch):
    # Their Runner makes its scope everybody's.
    scopes = DefaultScope._instance_dict.copy()
    monkeypatch.setattr(DefaultScope, "_instance_dict", scopes)
    data = [{"inputs": torch.ones(2), "data_samples": torch.ones(())} for _ in range(4)]
    loader = {
        "dataset": data,
        "batch_size": 2,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
    }
    theirs = TheirRunner(
        TheirToy(),
        work_dir=str(tmp_path / "theirs"),
        train_dataloader=loader,
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        param_scheduler=[{"type": "PolyLR"}],
        experiment_name="segfast_test",
    )
    theirs.train()
    path = tmp_path / "theirs" / "epoch_1.pth"
    with pytest.raises(Exception, match="HistoryBuffer"):
        torch.load(path, weights_only=True)
    assert load_checkpoint(path)["meta"]["iter"] == 2
    ours = Runner.from_cfg(
        toy_config(tmp_path / "ours", load_from=str(path), train_cfg={"max_iters": 1})
    )
    assert isinstance(ours.model, ToyModel)
    ours.val()
    assert torch.equal(ours.model.layer.weight, theirs.model.layer.weight)
    with pytest.raises(CheckpointError, match="is no checkpoint of segfast"):
        Runner.from_cfg(toy_config(tmp_path / "b", load_from=str(path), resume=True)).train()
