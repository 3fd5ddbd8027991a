"""Loops: when they validate, what of the losses of validation they keep, and what a Runner makes of their configs."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from runner.toys import ToyData, ToyMetric, ToyModel, toy_config

from segfast.errors import ConfigError
from segfast.runner import EpochBasedTrainLoop, Hook, IterBasedTrainLoop, Runner
from segfast.structures import BaseDataElement


class Validations(Hook):
    """At which iteration or epoch validation happened."""

    def __init__(self):
        self.at = []

    def before_val(self, runner):
        self.at.append(runner.epoch if runner.train_loop.by_epoch else runner.iter)


def validations(work_dir, **loop):
    hook = Validations()
    config = toy_config(work_dir, train_cfg=loop, custom_hooks=[hook])
    Runner.from_cfg(config).train()
    return hook.at


@pytest.mark.parametrize(("loop", "expected"), [
    ({"max_iters": 10, "val_interval": 4}, [4, 8, 10]),
    ({"max_iters": 10, "val_interval": 4, "val_begin": 5}, [8, 10]),
    ({"max_iters": 10, "val_interval": 4, "val_begin": 11}, []),
    ({"max_iters": 12, "val_interval": 5, "dynamic_intervals": [(6, 2), (10, 1)]}, [6, 8, 9, 10, 11, 12]),
    ({"max_epochs": 5, "val_interval": 2}, [2, 4, 5]),
    ({"max_epochs": 5, "val_interval": 5, "dynamic_intervals": [(4, 1)]}, [3, 4, 5]),
])  # fmt: skip
def test_when_validation_happens(tmp_path, loop, expected):
    assert validations(tmp_path, **loop) == expected


def test_intervals_in_order(tmp_path):
    with pytest.raises(ConfigError, match=r"^train_cfg: .*dynamic_intervals in order"):
        validations(tmp_path, max_iters=9, dynamic_intervals=[(6, 2), (3, 1)])
    with pytest.raises(ConfigError, match=r"^train_cfg: .*val_interval >= 1"):
        validations(tmp_path, max_iters=9, val_interval=0)
    with pytest.raises(ConfigError, match=r"^train_cfg.by_epoch: only one of type and by_epoch"):
        validations(tmp_path, type="IterBasedTrainLoop", by_epoch=False, max_iters=9)


class LossesInValidation(ToyModel):
    """Appends a sample of nothing but losses to its predictions."""

    def forward(self, inputs, data_samples=None, mode="tensor"):
        out = super().forward(inputs, data_samples, mode)
        if mode != "predict":
            return out
        loss = {"loss_fit": out[0]["error"], "parts": [torch.zeros(2), torch.ones(2)]}
        return [*out, BaseDataElement(loss=loss)]


def test_losses_of_validation_become_metrics(tmp_path):
    runner = Runner.from_cfg(toy_config(tmp_path, model={"type": LossesInValidation}))
    runner.train()
    assert list(runner.metrics) == ["aAcc", "loss_fit", "parts", "val_loss"]
    assert runner.metrics["parts"] == 0.5
    assert runner.metrics["val_loss"] == runner.metrics["loss_fit"]


def columns(samples):
    return {key: [sample[key] for sample in samples] for key in samples[0]}


def test_a_runner_without_from_cfg_takes_mmengines_short_forms(tmp_path):
    """As in MMEngine's first tutorial: no types of loops, a class for a type, loaders and metrics as objects."""
    data = torch.utils.data.DataLoader(ToyData(), batch_size=4, collate_fn=columns)
    runner = Runner(
        model=ToyModel(),
        work_dir=str(tmp_path),
        train_dataloader=data,
        optim_wrapper={"optimizer": {"type": torch.optim.SGD, "lr": 0.01}},
        train_cfg={"by_epoch": True, "max_epochs": 2, "val_interval": 1},
        val_dataloader=data,
        val_cfg={},
        val_evaluator={"type": ToyMetric},
        default_hooks={"visualization": None, "checkpoint": {"interval": 1}},
        launcher="none",
        device="cpu",
        quiet=True,
    )
    runner.train()
    assert (runner.epoch, runner.iter) == (2, 12)
    assert (tmp_path / "epoch_2.pth").is_file()
    assert runner.val() == runner.metrics  # after training, and not with the weights of before


class OwnIterations(IterBasedTrainLoop):
    """With MMEngine's signature."""

    def run_iter(self, data_batch):
        BATCHES.append((self.iter, len(data_batch["inputs"])))
        super().run_iter(data_batch)


class OwnEpochs(EpochBasedTrainLoop):
    """With MMEngine's signature."""

    def run_iter(self, idx, data_batch):
        BATCHES.append((idx, len(data_batch["inputs"])))
        super().run_iter(idx, data_batch)


BATCHES = []


@pytest.mark.parametrize(("loop", "places"), [
    ({"type": OwnIterations, "max_iters": 8}, list(range(8))),
    ({"type": OwnEpochs, "max_epochs": 2}, [0, 1, 2, 3, 4, 5] * 2),
])  # fmt: skip
def test_iterations_of_ones_own(tmp_path, loop, places):
    BATCHES.clear()
    Runner.from_cfg(toy_config(tmp_path, train_cfg=loop, param_scheduler=[])).train()
    assert [(place, 4) for place in places] == BATCHES
