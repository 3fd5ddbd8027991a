"""What a run tells the message hub, and what a checkpoint takes along of it."""

# SPDX-License-Identifier: Apache-2.0

import json

import pytest
import torch
from runner.toys import ToyMetric, ToyModel, toy_config

from segfast.runner import Hook, MessageHub, Runner


class Asks(Hook):
    """Reads the hub as code does that knows no Runner."""

    def __init__(self):
        self.rates, self.metrics = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        hub = MessageHub.get_current_instance()
        assert hub is runner.message_hub
        self.rates.append(hub.get_scalar("train/lr").current())

    def after_val_epoch(self, runner, metrics=None):
        self.metrics.append(runner.message_hub.get_scalar("val/aAcc").current())
        assert runner.metrics["aAcc"] == self.metrics[-1]


def records(work_dir):
    return [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]


def test_learning_rate_and_metrics(tmp_path):
    asks, steps = Asks(), {"type": "StepLR", "step_size": 4, "gamma": 0.5, "by_epoch": False}
    runner = Runner.from_cfg(toy_config(tmp_path, custom_hooks=[asks], param_scheduler=steps))
    runner.train()
    assert asks.rates == [0.05 * 0.5 ** (i // 4) for i in range(20)]
    lines = records(tmp_path)
    assert [line["lr"] for line in lines if line["mode"] == "train"] == asks.rates[4::5]  # no means
    assert asks.metrics == [line["aAcc"] for line in lines if line["mode"] == "val"]
    assert runner.message_hub.log_scalars is runner.message_hub.scalars


def test_several_groups_have_a_base_rate(tmp_path):
    wrapper = {
        "optimizer": {"type": "SGD", "lr": 0.1},
        "paramwise_cfg": {"bias_lr_mult": 2.0, "custom_keys": {"weight": {"lr_mult": 3.0}}},
    }
    config = toy_config(tmp_path, optim_wrapper=wrapper, param_scheduler=[])
    runner = Runner.from_cfg(config)
    runner.train()
    rates = runner.optim_wrapper.get_lr()
    hub = runner.message_hub
    assert hub.get_scalar("train/lr").current() == rates["lr"][0]
    assert hub.get_scalar("train/base_lr").mean() == rates["base_lr"][0] == 0.1


def test_a_resume_keeps_what_is_to_be_kept(tmp_path):
    class Tells(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            runner.message_hub.update_scalar("mine/kept", runner.iter)
            runner.message_hub.update_scalars({"mine/left": 1.0}, resumed=False)

    config = toy_config(tmp_path, custom_hooks=[Tells()])
    config["default_hooks"]["checkpoint"]["interval"] = 11
    Runner.from_cfg(config).train()
    file = torch.load(tmp_path / "iter_11.pth", weights_only=True)
    assert file["message_hub"]["mine/kept"] == list(range(11))
    assert len(file["message_hub"]["val/aAcc"]) == 1
    assert not {"mine/left", "train/lr"} & set(file["message_hub"])
    runner = Runner.from_cfg(config, load_from=tmp_path / "iter_11.pth", resume=True)
    runner.train()
    hub = runner.message_hub
    assert list(hub.get_scalar("mine/kept").values) == list(range(20))
    assert len(hub.get_scalar("val/aAcc").values) == 2
    keys = hub.resumed_keys
    assert (keys["mine/kept"], keys["mine/left"], keys["train/lr"]) == (True, False, False)


def test_metrics_that_are_no_numbers_are_facts(tmp_path):
    class Tables(ToyMetric):
        def compute_metrics(self, results):
            return {"aAcc": torch.tensor(1.5), "table": [1, 2]}

    runner = Runner.from_cfg(toy_config(tmp_path, val_evaluator={"type": Tables}))
    runner.val()
    assert runner.message_hub.get_scalar("val/aAcc").current() == 1.5
    assert runner.message_hub.get_info("val/table") == [1, 2]


def test_facts_come_and_go():
    hub = MessageHub()
    assert MessageHub.get_current_instance() is hub
    hub.update_info_dict({"a": 1, "b": 2})
    assert (hub.pop_info("a"), hub.pop_info("a", 7), hub.get_info("b")) == (1, 7, 2)
    hub.follow("x", lambda: 4)
    hub.update_scalar("x", 9.0)  # nobody's but the followed value's
    assert hub.get_scalar("x").current() == 4.0
    assert hub.take("x") == hub.pending() == {}
    with pytest.raises(KeyError, match="no scalar 'y', there are x"):
        hub.get_scalar("y")


def test_a_model_asks_during_its_step(tmp_path):
    class Model(ToyModel):
        def forward(self, inputs, data_samples=None, mode="tensor"):
            found = super().forward(inputs, data_samples, mode)
            hub = MessageHub.get_current_instance()
            assert (
                mode != "loss" or hub.get_scalar("train/lr").current() > hub.get_info("iter") / 1e9
            )
            return found

    Runner.from_cfg(toy_config(tmp_path, model={"type": Model})).train()
