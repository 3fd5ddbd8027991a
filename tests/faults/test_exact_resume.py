"""A run that goes on from a checkpoint ends as the run that was never interrupted: to the bit."""

# SPDX-License-Identifier: Apache-2.0

import json

import pytest
import torch
from toys import ToyData, ToyMetric, toy_config

from segfast.runner import Runner

LOOPS = {
    "iterations": {"type": "IterBasedTrainLoop", "max_iters": 24, "val_interval": 6},
    "epochs": {"type": "EpochBasedTrainLoop", "max_epochs": 4},  # of 6 iterations
}
WRAPPERS = {
    "plain": {"type": "OptimWrapper"},
    "groups of 3": {"type": "OptimWrapper", "accumulative_counts": 3, "clip_grad": {"max_norm": 1}},
    "float16": {"type": "AmpOptimWrapper", "dtype": "float16", "loss_scale": {"init_scale": 2.0**30, "growth_interval": 4}},
}  # fmt: skip
HOOKS = {
    "no hooks": [],
    "EMA, early stopping": [
        {"type": "EMAHook", "momentum": 0.1, "interval": 2},
        {"type": "EarlyStoppingHook", "monitor": "aAcc", "patience": 2, "min_delta": 1.5},
    ],
}
CASES = [  # the loop, the wrapper, the hooks, worker processes, the iteration it goes on from
    ("iterations", "plain", "no hooks", 0, 5),
    ("iterations", "groups of 3", "EMA, early stopping", 4, 10),
    ("iterations", "groups of 3", "no hooks", 0, 15),  # the log line before the step
    ("iterations", "float16", "no hooks", 0, 10),
    ("epochs", "plain", "EMA, early stopping", 4, 10),
    ("epochs", "groups of 3", "no hooks", 0, 20),
    ("epochs", "float16", "EMA, early stopping", 0, 5),
]


def run(folder, loop, wrapper, hooks, workers, **options):
    config = toy_config(
        folder,
        train_cfg=LOOPS[loop],
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.05}, **WRAPPERS[wrapper]},
        param_scheduler=[
            {"type": "LinearLR", "begin": 0, "end": 8, "by_epoch": False, "start_factor": 0.1},
            {"type": "ReduceOnPlateauLR", "monitor": "aAcc", "rule": "greater", "patience": 0},
        ],
        custom_hooks=HOOKS[hooks],
        default_hooks={
            "logger": {"interval": 4},
            "checkpoint": {"interval": 5, "by_epoch": False, "max_keep_ckpts": -1},
            "visualization": None,
        },
    )
    config["train_dataloader"]["num_workers"] = workers
    runner = Runner.from_cfg(config, **options)
    runner.train()
    return runner


def records(folder):
    """What the runs wrote, without the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "time" not in key} for line in lines]


@pytest.mark.parametrize(("loop", "wrapper", "hooks", "workers", "middle"), CASES)
def test_to_the_bit(tmp_path, loop, wrapper, hooks, workers, middle):
    whole = run(tmp_path / "whole", loop, wrapper, hooks, workers)
    torch.manual_seed(999)  # nothing in the process may help
    source = tmp_path / "whole" / f"iter_{middle}.pth"
    again = run(tmp_path / "again", loop, wrapper, hooks, workers, resume=True, load_from=source)
    assert again.iter == whole.iter > middle
    theirs = whole.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in again.model.state_dict().items())
    assert again.metrics == whole.metrics
    expected = [line for line in records(tmp_path / "whole") if line["iter"] > middle]
    assert records(tmp_path / "again") == expected
    for name in ("loss_scaler", "param_groups"):
        assert again.optim_wrapper.state_dict().get(name) == whole.optim_wrapper.state_dict().get(
            name
        )


def test_the_records_hold_every_step_once(tmp_path):
    """Resumed in its own folder, a run forgets what it wrote behind the checkpoint, and half a line."""
    whole = run(tmp_path / "whole", "iterations", "plain", "no hooks", 0)
    run(tmp_path / "again", "iterations", "plain", "no hooks", 0)
    with (tmp_path / "again/metrics.jsonl").open("a") as file:
        file.write('{"mode": "train", "it')
    source = tmp_path / "again/iter_15.pth"
    again = run(
        tmp_path / "again", "iterations", "plain", "no hooks", 0, resume=True, load_from=source
    )
    assert again.metrics == whole.metrics
    assert records(tmp_path / "again") == records(tmp_path / "whole")


class Brittle(ToyMetric):
    """Fails once, in the middle of the validation that belongs to the last checkpoint."""

    armed = False

    def compute_metrics(self, results):
        if Brittle.armed:
            Brittle.armed = False
            raise OSError("pulled the plug")
        return super().compute_metrics(results)


@pytest.mark.parametrize("patience", [1, 99])
def test_a_validation_that_was_cut_off_is_made_up_for(tmp_path, patience):
    """The state was saved before it; best file, early stopping and the plateau must not miss it."""
    hooks = [
        {"type": "EarlyStoppingHook", "monitor": "aAcc", "patience": patience, "min_delta": 50}
    ]

    def start(folder, **options):
        changes = {"val_evaluator": {"type": Brittle}, "custom_hooks": hooks}
        Runner.from_cfg(toy_config(folder, **changes), **options).train()

    start(tmp_path / "whole")
    Brittle.armed = True
    with pytest.raises(OSError, match="plug"):
        start(tmp_path / "again")
    assert not list((tmp_path / "again").glob("best_*"))
    start(tmp_path / "again", resume=True)
    assert records(tmp_path / "again") == records(tmp_path / "whole")
    names = [sorted(p.name for p in (tmp_path / f).glob("*.pth")) for f in ("whole", "again")]
    assert names[0] == names[1]


def test_a_finished_run_stays_as_it_is(tmp_path):
    whole = run(tmp_path, "iterations", "plain", "no hooks", 0)
    before = records(tmp_path)
    again = run(tmp_path, "iterations", "plain", "no hooks", 0, resume=True)
    assert again.metrics == whole.metrics
    assert again.checkpoint_hook.last_checkpoint == str(tmp_path / "iter_24.pth")
    assert records(tmp_path) == before


def test_validation_leaves_the_random_streams_alone(tmp_path):
    """So that more or fewer validations, or one that is made up for, change nothing in training."""

    class Noisy(ToyMetric):
        def process(self, data_batch, data_samples):
            torch.rand(1)
            super().process(data_batch, data_samples)

    def weights(folder, **val_cfg):
        cfg = {"type": "IterBasedTrainLoop", "max_iters": 12, **val_cfg}
        changes = {"val_evaluator": {"type": Noisy}, "train_cfg": cfg}
        runner = Runner.from_cfg(toy_config(folder, **changes))
        return runner.train().layer.weight

    assert torch.equal(
        weights(tmp_path / "a", val_interval=3), weights(tmp_path / "b", val_interval=12)
    )


def test_samples_are_the_same_whoever_loads_them(tmp_path):
    alone = run(tmp_path / "alone", "iterations", "plain", "no hooks", 0)
    workers = run(tmp_path / "workers", "iterations", "plain", "no hooks", 4)
    assert isinstance(workers.train_dataloader.dataset, ToyData)
    assert torch.equal(alone.model.layer.weight, workers.model.layer.weight)
