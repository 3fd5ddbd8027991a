"""The keys of a config around the model: environment, imports, learning rate by batch size, log, visualizer."""

# SPDX-License-Identifier: Apache-2.0

import json
import sys
from typing import ClassVar

import pytest
import torch
from runner.toys import ToyModel, toy_config

from segfast.errors import ConfigError
from segfast.runner import Hook, Runner

# What an mmseg config's default_runtime.py and schedule_20k.py hold.
RUNTIME = {
    "default_scope": "mmseg",
    "env_cfg": {
        "cudnn_benchmark": True,
        "mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0},
        "dist_cfg": {"backend": "nccl"},
    },
    "log_processor": {"by_epoch": False},
    "log_level": "INFO",
    "launcher": "none",
    "load_from": None,
    "resume": False,
    "tta_model": {"type": "SegTTAModel"},
    "default_hooks": {
        "timer": {"type": "IterTimerHook"},
        "logger": {"type": "LoggerHook", "interval": 5, "log_metric_by_epoch": False},
        "param_scheduler": {"type": "ParamSchedulerHook"},
        "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 10},
        "sampler_seed": {"type": "DistSamplerSeedHook"},
        "visualization": {"type": "SegVisualizationHook"},
    },
}


@pytest.fixture(autouse=True)
def _cudnn():
    before = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = before


def test_an_mmseg_runtime_is_taken_as_it_is(tmp_path):
    torch.backends.cudnn.benchmark = False
    Runner.from_cfg(toy_config(tmp_path, **RUNTIME)).train()
    assert torch.backends.cudnn.benchmark
    assert (tmp_path / "iter_20.pth").is_file()


@pytest.mark.parametrize(("changes", "text"), [
    ({"env_cfg": {"cudnn_benchmrk": True}}, r"^env_cfg.cudnn_benchmrk: unknown \(did you mean cudnn_benchmark"),
    ({"launcher": "slrm"}, r"^launcher: expected one of none, pytorch"),
    ({"custom_imports": {"imports": ["no_such_module"]}}, r"^custom_imports.imports: no_such_module: "),
    ({"auto_scale_lr": {"enable": True}}, r"^auto_scale_lr.base_batch_size: missing"),
    ({"log_processor": {"windw_size": 3}}, r"^default_hooks.logger.windw_size: .*did you mean window_size"),
    ({"train_dataloder": {}}, r"^train_dataloder: unknown key .*train_dataloader"),
])  # fmt: skip
def test_what_is_refused(tmp_path, changes, text):
    with pytest.raises(ConfigError, match=text):
        Runner.from_cfg(toy_config(tmp_path, **changes)).train()


def test_custom_imports_register_types(tmp_path, monkeypatch):
    (tmp_path / "my_hooks.py").write_text(
        "from segfast.registry import HOOKS\n"
        "from segfast.runner import Hook\n"
        "@HOOKS.register_module()\n"
        "class MyHook(Hook):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    changes = {"custom_hooks": [{"type": "MyHook", "priority": 5}]}
    imports = {"imports": ["my_hooks", "no_such_module"], "allow_failed_imports": True}
    runner = Runner.from_cfg(toy_config(tmp_path, custom_imports=imports, **changes))
    assert type(runner.hooks[0]).__name__ == "MyHook"
    del sys.modules["my_hooks"]


def test_the_learning_rate_follows_the_batch_size(tmp_path):
    scale = {"enable": True, "base_batch_size": 16}
    runner = Runner.from_cfg(toy_config(tmp_path, auto_scale_lr=scale, param_scheduler=[]))
    runner.train()
    assert runner.optim_wrapper.get_lr() == {"lr": [0.05 * 4 / 16]}


class Scalars:
    """A visualizer that only takes scalars."""

    def __init__(self):
        self.records = []

    def add_scalars(self, values, step):
        self.records.append((step, values))


def test_lines_records_and_scalars(tmp_path):
    visualizer = Scalars()
    config = toy_config(tmp_path, visualizer=visualizer, optim_wrapper={
        "optimizer": {"type": "AdamW", "lr": 0.05}, "clip_grad": {"max_norm": 1.0}})  # fmt: skip
    Runner.from_cfg(config).train()
    text = (tmp_path / "log.txt").read_text()
    assert "Iter(train) [ 5/20]  lr: " in text
    assert "  eta: 0:00:0" in text
    assert "  grad_norm: " in text
    assert "Iter(val) [3/3]  after iter 10  aAcc: " in text
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    modes = [(line["mode"], line["step"]) for line in lines]
    assert modes[:3] == [("train", 5), ("train", 10), ("val", 10)]
    assert [step for step, _ in visualizer.records] == [line["step"] for line in lines]
    assert {"loss", "loss_fit", "lr", "time", "data_time", "grad_norm"} <= set(
        visualizer.records[0][1]
    )
    assert list(visualizer.records[2][1]) == ["val/aAcc", "val/data_time", "val/time"]


def test_lines_count_epochs_where_the_loop_does(tmp_path):
    loop = {"max_epochs": 2, "val_interval": 1}
    hooks = {"logger": {"interval": 3, "num_digits": 2}, "visualization": None}
    Runner.from_cfg(toy_config(tmp_path, train_cfg=loop, default_hooks=hooks)).train()
    text = (tmp_path / "log.txt").read_text()
    assert "Epoch(train) [2][3/6]  lr: " in text
    assert "Epoch(val) [3/3]  after epoch 2  aAcc: " in text


class Told(Hook):
    """Tells the log something of its own, and asks it."""

    seen: ClassVar[list] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.message_hub.update_scalar("train/mine", runner.iter)
        Told.seen.append(runner.message_hub.get_info("iter"))
        if runner.iter == 3:
            runner.logger.warning("look")


def test_a_hook_may_log_what_it_likes(tmp_path):
    Told.seen.clear()
    Runner.from_cfg(toy_config(tmp_path, custom_hooks=[Told()])).train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["mine"] for line in lines if line["mode"] == "train"] == [2, 7, 12, 17]
    assert Told.seen == list(range(20))
    assert "warning: look" in (tmp_path / "log.txt").read_text()


class Counted(torch.Tensor):
    """Counts how often a value leaves the device, which it says is not the CPU."""

    transfers: ClassVar[list] = []
    leaving = (
        torch.Tensor.item,
        torch.Tensor.tolist,
        torch.Tensor.__float__,
        torch.Tensor.__bool__,
    )

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in cls.leaving:
            cls.transfers.append(func.__name__)
        if func == torch.Tensor.is_cpu.__get__:
            return False
        return super().__torch_function__(func, types, args, kwargs or {})


class CountedModel(ToyModel):
    """Its losses, and everything computed from them, count their transfers."""

    def train_step(self, data, optim_wrapper):
        log_vars = super().train_step(data, optim_wrapper)
        return {name: value.as_subclass(Counted) for name, value in log_vars.items()}


def test_losses_wait_for_the_device_once_per_line(tmp_path):
    Counted.transfers.clear()
    changes = {"default_hooks": {"logger": {"interval": 5}, "visualization": None}}
    Runner.from_cfg(toy_config(tmp_path, model={"type": CountedModel}, **changes)).train()
    assert Counted.transfers == ["tolist"] * 4  # 20 iterations, 2 losses each


def test_schedulers_of_a_config(tmp_path):
    """Epochs become iterations on request; one that never steps is warned of."""
    loop = {"max_epochs": 4, "val_interval": 9}
    steps = [
        {"type": "MultiStepLR", "milestones": [1, 2], "gamma": 0.5, "convert_to_iter_based": True}
    ]
    runner = Runner.from_cfg(toy_config(tmp_path / "a", train_cfg=loop, param_scheduler=steps))
    runner.train()
    (scheduler,) = runner.param_schedulers
    assert (scheduler.milestones, scheduler.end, scheduler.by_epoch) == ([6, 12], 24, False)
    assert "counts epochs" not in (tmp_path / "a/log.txt").read_text()
    Runner.from_cfg(toy_config(tmp_path / "b", param_scheduler={"type": "PolyLR"})).train()
    assert "warning: param_scheduler.0 counts epochs, but" in (tmp_path / "b/log.txt").read_text()
    steps[0]["by_epoch"] = False
    with pytest.raises(
        ConfigError, match=r"^param_scheduler.0.convert_to_iter_based: by_epoch=False"
    ):
        Runner.from_cfg(toy_config(tmp_path / "c", train_cfg=loop, param_scheduler=steps)).train()


@pytest.mark.parametrize("priority", ["VERY", 101, -1])
def test_priorities(tmp_path, priority):
    hook = {"type": Told, "priority": priority}
    with pytest.raises(
        ConfigError, match=r"^custom_hooks.0.priority: expected a priority from 0 to 100"
    ):
        Runner.from_cfg(toy_config(tmp_path, custom_hooks=[hook]))
