"""Whole runs of a toy: loops, hooks in order, files, exact resume, refusals."""

# SPDX-License-Identifier: Apache-2.0

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from toys import ToyData, ToyMetric, ToyModel, toy_config

from segfast.errors import CheckpointError, ConfigError, UserError
from segfast.runner import Hook, Runner


class Recorder(Hook):
    """Writes down every point it is called at."""

    def __init__(self):
        self.calls = []

    def __getattribute__(self, name):
        if name.startswith(("before_", "after_")):
            return lambda runner, **kwargs: self.calls.append((name, runner.iter))
        return super().__getattribute__(name)


def run(work_dir, **changes):
    runner = Runner.from_cfg(toy_config(work_dir, **changes))
    runner.train()
    return runner


def weights(runner):
    return torch.cat([p.detach().flatten() for p in runner.model.parameters()])


def test_training_fits_and_leaves_its_files(tmp_path):
    runner = run(
        tmp_path,
        model={"type": ToyModel, "dropout": 0.0},
        train_cfg={"max_iters": 600, "val_interval": 100},
    )
    torch.testing.assert_close(
        runner.model.layer.weight.detach(), torch.tensor([[3.0, -1.0]]), atol=0.1, rtol=0
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["mode"] == "train"]
    assert [line["iter"] for line in train] == list(range(5, 601, 5))
    assert train[-1]["loss"] < train[0]["loss"]
    assert {"lr", "time", "data_time", "loss", "loss_fit"} <= set(train[0])
    assert [line["iter"] for line in lines if line["mode"] == "val"] == [
        100,
        200,
        300,
        400,
        500,
        600,
    ]
    assert (tmp_path / "last_checkpoint").read_text().strip() == str(tmp_path / "iter_600.pth")
    assert sorted(p.name for p in tmp_path.glob("*.pth"))[-1] == "iter_600.pth"
    assert len(list(tmp_path.glob("best_aAcc_iter_*.pth"))) == 1
    assert len(list(tmp_path.glob("iter_*.pth"))) == 2  # max_keep_ckpts
    assert "Iter(train) [600/600]" in (tmp_path / "log.txt").read_text()


def test_hook_points_in_order(tmp_path):
    recorder = Recorder()
    run(tmp_path, train_cfg={"type": "EpochBasedTrainLoop", "max_epochs": 1}, custom_hooks=[recorder],
        train_dataloader={"batch_size": 12, "dataset": {"type": ToyData}}, param_scheduler=[],
        val_dataloader={"batch_size": 10, "dataset": {"type": ToyData, "size": 10}})  # fmt: skip
    names = [name for name, _ in recorder.calls if "save" not in name]
    assert names == [
        "before_run", "before_train", "before_train_epoch",
        "before_train_iter", "after_train_iter", "before_train_iter", "after_train_iter", "after_train_epoch",
        "before_val", "before_val_epoch", "before_val_iter", "after_val_iter", "after_val_epoch", "after_val",
        "after_train", "after_run",
    ]  # fmt: skip


def test_priorities_of_the_built_in_hooks(tmp_path):
    runner = Runner.from_cfg(toy_config(tmp_path))
    names = [type(hook).__name__ for hook in runner.hooks]
    assert names == [
        "RuntimeInfoHook",
        "IterTimerHook",
        "DistSamplerSeedHook",
        "LoggerHook",
        "ParamSchedulerHook",
        "CheckpointHook",
    ]


@pytest.mark.parametrize("loop", [
    {"type": "IterBasedTrainLoop", "max_iters": 23, "val_interval": 7},
    {"type": "EpochBasedTrainLoop", "max_epochs": 4},
], ids=["iter", "epoch"])  # fmt: skip
@pytest.mark.parametrize("counts", [1, 3])
def test_resume_is_exact(tmp_path, loop, counts):
    by_epoch = loop["type"] == "EpochBasedTrainLoop"
    changes = {
        "train_cfg": loop,
        "optim_wrapper": {
            "optimizer": {"type": "AdamW", "lr": 0.05},
            "accumulative_counts": counts,
        },
        "default_hooks": {
            "checkpoint": {
                "interval": 2 if by_epoch else 9,
                "by_epoch": by_epoch,
                "max_keep_ckpts": -1,
            },
            "visualization": None,
        },
    }
    whole = run(tmp_path / "whole", **changes)
    middle = tmp_path / "whole" / ("epoch_2.pth" if by_epoch else "iter_9.pth")
    # Nothing in the process may help: other random states, another sampler, another model.
    torch.manual_seed(999)
    resumed = run(
        tmp_path / "again", **changes, resume=True, load_from=str(middle), randomness={"seed": 3}
    )
    assert resumed.iter == whole.iter
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.metrics == whole.metrics
    seen = resumed.train_loop.dataloader.dataset.seen
    assert len(seen) == 4 * (whole.iter - (12 if by_epoch else 9))  # nothing was replayed


def test_resume_takes_the_last_checkpoint(tmp_path):
    run(tmp_path, train_cfg={"max_iters": 10, "val_interval": 10})
    runner = run(tmp_path, train_cfg={"max_iters": 20, "val_interval": 10}, resume=True)
    assert runner.iter == 20
    assert len(runner.train_loop.dataloader.dataset.seen) == 40


def test_checkpoint_is_plain_data(tmp_path):
    run(tmp_path)
    state = torch.load(tmp_path / "iter_20.pth", weights_only=True)
    assert state["meta"]["iter"] == 20
    assert state["meta"]["dataset_meta"] == {"classes": ["value"]}
    assert {"state_dict", "optimizer", "param_schedulers", "random"} <= set(state)
    best = torch.load(next(tmp_path.glob("best_*.pth")), weights_only=True)
    assert "optimizer" not in best


def test_bad_checkpoints(tmp_path):
    run(tmp_path / "a")
    (tmp_path / "torn.pth").write_bytes((tmp_path / "a" / "iter_20.pth").read_bytes()[:500])
    for source, text in [
        (tmp_path / "none.pth", "no checkpoint"),
        (tmp_path / "torn.pth", "cannot be read as a checkpoint"),
        (next((tmp_path / "a").glob("best_*.pth")), "weights only"),
    ]:
        with pytest.raises(CheckpointError, match=text):
            run(tmp_path / "b", load_from=str(source), resume=True)


def test_incomplete_groups_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^val_cfg: missing, but val_dataloader and val_evaluator are given"
    ):
        Runner(
            ToyModel(), tmp_path, val_dataloader={"dataset": ToyData()}, val_evaluator=ToyMetric()
        )
    with pytest.raises(ConfigError, match=r"^param_scheduler: given without optim_wrapper"):
        Runner(ToyModel(), tmp_path, param_scheduler=[{"type": "PolyLR"}])
    with pytest.raises(ConfigError, match=r"^model: missing"):
        Runner.from_cfg({"work_dir": str(tmp_path)})


def test_errors_carry_the_whole_path(tmp_path):
    for changes, text in [
        ({"train_cfg": {"max_iters": 5, "val_intervall": 1}}, r"^train_cfg.val_intervall: .*did you mean val_interval"),
        ({"optim_wrapper": {"optimizer": {"type": "Adamw", "lr": 1}}}, r"^optim_wrapper.optimizer.type: .*did you mean AdamW"),
        ({"optim_wrapper": {"optimizer": {"type": "SGD", "momentun": 1}}}, r"^optim_wrapper.optimizer.momentun: .*momentum"),
        ({"param_scheduler": [{"type": "PolyLR", "pover": 1}]}, r"^param_scheduler.0.pover: "),
        ({"default_hooks": {"logger": {"intervall": 1}}}, r"^default_hooks.logger.intervall: .*did you mean interval"),
        ({"default_hooks": {"checkpoint": {"save_best": "mIoU"}, "visualization": None}}, r"save_best: no metric 'mIoU'"),
        ({"train_dataloader": {"batchsize": 2, "dataset": ToyData()}}, r"^train_dataloader.batchsize: .*batch_size"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=text):
            run(tmp_path, **changes)


def test_loss_that_explodes_stops_the_run(tmp_path):
    with pytest.raises(UserError, match=r"the loss became (nan|inf).*clip_grad"):
        run(
            tmp_path,
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 1e20}},
            train_cfg={"max_iters": 40},
        )


def test_a_run_cut_short_of_its_warm_up(tmp_path):
    schedule = [
        {"type": "LinearLR", "begin": 0, "end": 20, "by_epoch": False},
        {"type": "PolyLR", "begin": 20, "by_epoch": False},
    ]
    assert run(tmp_path, param_scheduler=schedule, train_cfg={"max_iters": 3}).iter == 3


def test_pictures_are_left_out_where_nothing_is_segmented(tmp_path):
    run(tmp_path, default_hooks={"visualization": {"draw": True}})
    assert not (tmp_path / "pictures").exists()


def test_test_loop(tmp_path):
    trained = run(tmp_path / "a")
    config = {
        "model": {"type": ToyModel},
        "work_dir": str(tmp_path / "b"),
        "test_dataloader": {"batch_size": 4, "dataset": {"type": ToyData, "size": 10}},
        "test_evaluator": {"type": ToyMetric},
        "device": "cpu",
        "quiet": True,
    }
    metrics = Runner.from_cfg(config, load_from=tmp_path / "a" / "iter_20.pth").test()
    assert metrics == trained.metrics


def test_published_files_hold_the_keys_asked_for(tmp_path):
    hooks = {"checkpoint": {"published_keys": ["meta", "state_dict"]}, "visualization": None}
    run(tmp_path, default_hooks=hooks)
    published = sorted(path.stem for path in tmp_path.glob("*-????????.pth"))
    assert [name.split("-")[0].rstrip("0123456789") for name in published] == [
        "best_aAcc_iter_",
        "iter_",
    ]
    state = torch.load(tmp_path / f"{published[1]}.pth", weights_only=True)
    assert set(state) == {"meta", "state_dict"}
    assert not list(tmp_path.glob(".*"))


def test_a_resume_with_other_schedulers_is_refused(tmp_path):
    run(tmp_path, param_scheduler=[{"type": "PolyLR", "by_epoch": False}])
    with pytest.raises(CheckpointError, match=r"written with 1 param_schedulers, the config has 0"):
        run(tmp_path, param_scheduler=[], resume=True)


def test_what_was_trained_is_not_replaced_by_what_it_started_from(tmp_path):
    run(tmp_path / "a", train_cfg={"max_iters": 2})
    runner = run(tmp_path / "b", load_from=str(tmp_path / "a/iter_2.pth"))
    trained = weights(runner)
    assert runner.val() == runner.metrics
    assert torch.equal(weights(runner), trained)
