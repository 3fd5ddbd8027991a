"""Resuming where something besides the checkpoint matters: copies, samplers, other optimisers, early stops, counts."""

# SPDX-License-Identifier: Apache-2.0

import json
import math
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler
from toys import ToyData, ToyModel, toy_config

import segfast
from segfast.errors import CheckpointError
from segfast.runner import Runner
from segfast.runner.resume import saved_in

EVERY_FIVE = {"checkpoint": {"interval": 5, "max_keep_ckpts": -1}, "visualization": None}


def run(folder, resume=False, load_from=None, **changes):
    config = toy_config(folder, **{"default_hooks": EVERY_FIVE, **changes})
    runner = Runner.from_cfg(config, resume=resume, load_from=load_from)
    runner.train()
    return runner


def same(one, other):
    theirs = other.model.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.model.state_dict().items())


def train_cfg(max_iters, val_interval=10):
    return {"type": "IterBasedTrainLoop", "max_iters": max_iters, "val_interval": val_interval}


def test_a_copy_goes_on_from_its_own_files(tmp_path):
    run(tmp_path / "original", train_cfg=train_cfg(10))
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    run(tmp_path / "original", resume=True, train_cfg=train_cfg(30))
    again = run(tmp_path / "copy", resume=True, train_cfg=train_cfg(15))
    assert again.resumed_from == tmp_path / "copy/iter_10.pth"
    assert again.iter == 15


def test_the_times_of_a_copy_say_nothing(tmp_path):
    """Copied without them, the oldest file may be the newest."""
    run(tmp_path)
    for age, step in enumerate((20, 5, 15, 10)):
        moment = time.time() + age
        os.utime(tmp_path / f"iter_{step}.pth", (moment, moment))
    assert saved_in(tmp_path)[0].name == "iter_20.pth"


def test_names_without_a_file_are_no_checkpoints(tmp_path):
    run(tmp_path)
    (tmp_path / "latest.pth").symlink_to("iter_1.pth")
    (tmp_path / "folder.pth").mkdir()
    assert run(tmp_path, resume=True).resumed_from == tmp_path / "iter_20.pth"


def test_a_run_killed_before_its_first_save_begins_its_records_again(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"mode": "train", "iter": 2, "step": 2}\n{"mode"')
    run(tmp_path, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["iter"] for line in lines if line["mode"] == "train"]
    assert steps == [10, 20]


@pytest.mark.parametrize("loop", [
    {"type": "IterBasedTrainLoop", "max_iters": 20, "val_interval": 10},
    {"type": "EpochBasedTrainLoop", "max_epochs": 4},
])  # fmt: skip
def test_with_a_batch_sampler(tmp_path, loop):
    """torch's loader has a stand-in for its sampler then."""
    changes = {
        "train_dataloader": {
            "batch_size": 4,
            "dataset": {"type": ToyData},
            "batch_sampler": {"type": BatchSampler},
        },
        "train_cfg": loop,
        "default_hooks": {"checkpoint": {**EVERY_FIVE["checkpoint"], "by_epoch": False}},
    }
    whole = run(tmp_path / "whole", **changes)
    again = run(tmp_path / "again", True, tmp_path / "whole/iter_5.pth", **changes)
    assert same(again, whole)
    assert "cannot go on within its pass" not in (tmp_path / "again/log.txt").read_text()


def test_a_sampler_of_somebody_else_is_told(tmp_path):
    loader = {"batch_size": 4, "dataset": {"type": ToyData}, "sampler": RandomSampler(ToyData())}
    run(tmp_path / "whole", train_dataloader=loader)
    run(tmp_path / "again", True, tmp_path / "whole/iter_5.pth", train_dataloader=loader)
    told = "warning: RandomSampler cannot go on within its pass over the data"
    assert told in (tmp_path / "again/log.txt").read_text()


def test_another_optimiser_is_refused_in_one_line(tmp_path):
    run(tmp_path, train_cfg=train_cfg(10))
    adagrad = {"optimizer": {"type": "Adagrad", "lr": 0.1}}
    with pytest.raises(
        CheckpointError, match=r"another optimiser \(AdamW there, Adagrad in the config"
    ):
        run(tmp_path, resume=True, optim_wrapper=adagrad)
    groups = {
        "optimizer": {"type": "AdamW", "lr": 0.1},
        "paramwise_cfg": {"bias_lr_mult": 2.0},
    }
    with pytest.raises(CheckpointError, match=r"another optimiser .*parameter group"):
        run(tmp_path, resume=True, optim_wrapper=groups)


class TwoSteps(ToyModel):
    """Takes two micro-steps an iteration, so that its count is not the iterations'."""

    def train_step(self, data, optim_wrapper):
        for _ in range(2):
            with optim_wrapper.optim_context(self):
                loss = self(**self.data_preprocessor(data, True), mode="loss")["loss_fit"]
            optim_wrapper.update_params(loss)
        return {"loss": loss.detach()}


def test_the_micro_steps_of_a_model_s_own_train_step_count_on(tmp_path):
    wrapper = {"accumulative_counts": 3, "optimizer": {"type": "AdamW", "lr": 0.05}}
    changes = {"model": {"type": TwoSteps}, "optim_wrapper": wrapper}
    whole = run(tmp_path / "whole", **changes)
    again = run(tmp_path / "again", True, tmp_path / "whole/iter_5.pth", **changes)
    assert same(again, whole)


class Bad(ToyModel):
    """The loss of one call of a process is NaN, and a batch norm sees it; both runs count from 1."""

    def __init__(self, at):
        super().__init__(dropout=0.0)
        self.at, self.norm = at, torch.nn.BatchNorm1d(1)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, inputs, data_samples=None, mode="tensor"):
        losses = super().forward(inputs, data_samples, mode)
        if mode == "loss":
            call = self.norm.num_batches_tracked.item() + 1
            value = math.nan if call == self.at and not self.calls else float(call)
            self.calls += int(call == self.at)  # put back with the other buffers: bad every time
            self.norm(torch.full((4, 1), value))
            losses["loss_fit"] = losses["loss_fit"] * (value / value)
        return losses


@pytest.mark.parametrize("at", [10, 11, 12])
def test_a_skipped_group_that_a_checkpoint_cuts_in_two(tmp_path, at):
    """Groups of three, a checkpoint behind the tenth micro-step: the buffers are put back to those before the group."""
    wrapper = {"accumulative_counts": 3, "nonfinite_loss": "skip"}
    changes = {
        "model": {"type": Bad, "at": at},
        "optim_wrapper": {**wrapper, "optimizer": {"type": "AdamW", "lr": 0.05}},
        "param_scheduler": [],
    }
    whole = run(tmp_path / "whole", **changes)
    assert whole.optim_wrapper.policy.skipped > 0
    assert math.isfinite(whole.model.norm.running_mean.item())
    again = run(tmp_path / "again", True, tmp_path / "whole/iter_10.pth", **changes)
    assert same(again, whole)


STOPPERS = {
    "patience": {"min_delta": 1000, "patience": 2},
    "threshold": {"min_delta": 0.0, "stopping_threshold": 1.0},
}


@pytest.mark.parametrize("kind", STOPPERS)
def test_a_run_that_was_stopped_early_stays_stopped(tmp_path, kind):
    """Also where the validation that stopped it had the best score, and its checkpoint was written again."""
    changes = {
        "custom_hooks": [{"type": "EarlyStoppingHook", "monitor": "aAcc", **STOPPERS[kind]}],
        "train_cfg": train_cfg(40, 5),
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.02}},
    }
    whole = run(tmp_path, **changes)
    assert whole.iter < 40
    assert run(tmp_path, resume=True, **changes).iter == whole.iter
    changes["custom_hooks"] = []
    assert run(tmp_path, resume=True, **changes).iter == 40


def test_an_early_stop_leaves_a_state(tmp_path):
    hooks = [{"type": "EarlyStoppingHook", "monitor": "aAcc", "min_delta": 1000, "patience": 1}]
    never = {"checkpoint": {"interval": -1}, "visualization": None}
    whole = run(tmp_path, custom_hooks=hooks, default_hooks=never, train_cfg=train_cfg(40, 5))
    assert whole.checkpoint_hook.last_checkpoint == str(tmp_path / f"iter_{whole.iter}.pth")
    assert (tmp_path / f"iter_{whole.iter}.pth").is_file()


def test_two_early_stopping_hooks_keep_their_own_counts(tmp_path):
    hooks = [
        {"type": "EarlyStoppingHook", "monitor": "aAcc", "min_delta": 1000, "patience": 4},
        {"type": "EarlyStoppingHook", "monitor": "aAcc", "min_delta": 0.0, "patience": 100},
    ]
    changes = {"custom_hooks": hooks, "train_cfg": train_cfg(60, 5)}
    whole = run(tmp_path / "whole", **changes)
    again = run(tmp_path / "again", True, tmp_path / "whole/iter_15.pth", **changes)
    assert again.iter == whole.iter < 60


def test_a_best_file_in_another_folder_is_not_promised(tmp_path):
    whole = run(tmp_path / "whole", train_cfg=train_cfg(10, 5))
    hooks = {"checkpoint": {**EVERY_FIVE["checkpoint"], "published_keys": ["state_dict"]}}
    changes = {"default_hooks": hooks, "train_cfg": train_cfg(10, 5)}  # nothing is left to do
    again = run(tmp_path / "again", True, tmp_path / "whole/iter_10.pth", **changes)
    assert again.checkpoint_hook.best_checkpoint is None
    assert again.checkpoint_hook.best_score == whole.checkpoint_hook.best_score
    assert list((tmp_path / "again").glob("iter_10-*.pth"))  # published


def test_resume_prefers_the_work_dir_to_the_weights_that_a_config_starts_from(tmp_path):
    run(tmp_path / "other", train_cfg=train_cfg(10))
    weights = {"state_dict": torch.load(tmp_path / "other/iter_10.pth")["state_dict"]}
    torch.save(weights, tmp_path / "pretrained.pth")
    config = toy_config(tmp_path / "run", load_from=str(tmp_path / "pretrained.pth"))
    first = segfast.train({**config, "train_cfg": train_cfg(10)}, resume=True)
    assert first.checkpoint == str(tmp_path / "run/iter_10.pth")
    segfast.train(config, resume=True)
    log = (tmp_path / "run/log.txt").read_text()
    assert f"resumed {tmp_path / 'run/iter_10.pth'} at iteration 10" in log
    assert log.count("resumed") == 1


def test_weights_for_another_number_of_classes_load_but_for_the_head(tmp_path):
    run(tmp_path / "other", train_cfg=train_cfg(10))
    source = tmp_path / "other/iter_10.pth"
    state = torch.load(source)
    state["state_dict"]["layer.bias"] = torch.zeros(7)
    torch.save(state, source)
    runner = Runner.from_cfg(toy_config(tmp_path / "run", train_cfg=train_cfg(1)), load_from=source)
    runner._load = lambda: (Runner._load(runner), started.update(state_of(runner)))
    started: dict = {}
    bias = runner.model.layer.bias.detach().clone()
    runner.train()
    assert torch.equal(started["layer.weight"], state["state_dict"]["layer.weight"])
    assert torch.equal(started["layer.bias"], bias)
    told = "1 weights did not fit and stay as they were: layer.bias is (7,) there but (1,) in the model"
    assert told in (tmp_path / "run/log.txt").read_text()


def state_of(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def test_weights_of_which_none_fits_are_refused(tmp_path):
    torch.save({"state_dict": {"stem.weight": torch.zeros(3)}}, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match="none of its 1 weights fits the model, the first is stem"
    ):
        run(tmp_path / "run", load_from=tmp_path / "a.pth")


class Wrapping(ToyModel):
    """Its own part is called `module`, as DDP's is."""

    def __init__(self):
        super().__init__()
        self.module = torch.nn.Linear(2, 1)
        self.layer = self.module


def test_a_model_with_a_part_called_module_resumes_its_own_file(tmp_path):
    run(tmp_path, model={"type": Wrapping}, train_cfg=train_cfg(10))
    assert run(tmp_path, resume=True, model={"type": Wrapping}).iter == 20


def test_too_little_memory_is_no_damage(tmp_path, monkeypatch):
    run(tmp_path)

    def load(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        run(tmp_path, resume=True)


def test_files_obey_the_umask(tmp_path):
    code = (
        "import os, sys; os.umask(0o077); from pathlib import Path; "
        "from segfast.runner.checkpoint import save_checkpoint as save; save({}, Path(sys.argv[1]))"
    )
    path = tmp_path / "a.pth"
    subprocess.run([sys.executable, "-P", "-c", code, str(path)], check=True)
    assert path.stat().st_mode & 0o777 == 0o600
