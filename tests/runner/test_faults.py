"""Losses that are not finite stop a run with the iteration, the images and the state, or are skipped; files are replaced."""

# SPDX-License-Identifier: Apache-2.0

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from runner.toys import ToyData, ToyModel, toy_config
from tiny_data import folder_config, make_folder

from segfast.datasets import BaseSegDataset, SampleKey, build_dataloader
from segfast.datasets.skips import note_skip, take_skips
from segfast.errors import ConfigError, DataError, UserError
from segfast.runner import OptimWrapper, Runner
from segfast.runner.faults import batch_files
from segfast.runner.nonfinite import NonFiniteLossError, SkipNonFinite


class Spoilt(ToyModel):
    """The loss of the given calls is not finite; a batch norm sees what the loss sees."""

    def __init__(self, at=(), value=math.nan, on_cpu=True):
        super().__init__(dropout=0.0)
        self.at, self.value, self.calls = at, value, 0
        self.norm = torch.nn.BatchNorm1d(1)
        self.shown = []

    def forward(self, inputs, data_samples=None, mode="tensor"):
        if mode != "loss":
            return super().forward(inputs, data_samples, mode)
        self.calls += 1
        self.shown.append(inputs)
        losses = super().forward(inputs, data_samples, mode)
        factor = torch.full((2, 1), self.value if self.calls in self.at else 1.0)
        self.norm(factor)
        return {"loss_fit": losses["loss_fit"] * factor[0, 0]}


def spoilt_config(work_dir, at, **changes):
    model = {"type": Spoilt, "at": at}
    return toy_config(work_dir, **{"model": model, "param_scheduler": [], **changes})


def state(runner):
    return {k: v.clone() for k, v in runner.model.state_dict().items()}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_stops_before_the_step_and_leaves_its_state(tmp_path, value):
    config = spoilt_config(tmp_path, (8,))
    config["model"]["value"] = value
    runner = Runner.from_cfg(config)
    with pytest.raises(NonFiniteLossError) as caught:
        runner.train()
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"the loss became {value} in iteration 8; its images: sample ")
    assert str(tmp_path / "nonfinite_iter_8.pth") in text
    assert "clip_grad" in text
    saved = torch.load(tmp_path / "nonfinite_iter_8.pth", weights_only=True)
    assert saved["nonfinite"]["iter"] == 8
    assert saved["nonfinite"]["weights_after_iter"] == saved["meta"]["iter"] == 7
    assert {"optimizer", "param_schedulers", "state_dict"} <= saved.keys()
    # The weights are those of a run that ends one iteration earlier, and so is the optimiser.
    other = Runner.from_cfg(
        spoilt_config(tmp_path / "b", (), train_cfg={"max_iters": 7, "val_interval": 10})
    )
    other.train()
    for key in ("layer.weight", "layer.bias"):
        assert torch.equal(saved["state_dict"][key], state(other)[key])
    assert not (tmp_path / "last_checkpoint").exists()


def test_a_resume_goes_on_from_the_last_good_checkpoint(tmp_path):
    config = spoilt_config(tmp_path, (13,))
    with pytest.raises(NonFiniteLossError, match="in iteration 13"):
        Runner.from_cfg(config).train()
    runner = Runner.from_cfg({**config, "model": {"type": Spoilt}, "resume": True})
    runner.train()
    assert runner.resumed_from == tmp_path / "iter_10.pth"


def test_a_group_that_a_checkpoint_cuts_in_two_is_still_bad():
    policy, other = SkipNonFinite(), SkipNonFinite()
    policy.look(torch.tensor(math.nan))
    other.load_state_dict(policy.state_dict())
    other.before_forward(torch.nn.BatchNorm1d(1))
    other.look(torch.tensor(1.0))
    assert not other.may_step()
    assert other.skipped == 1


@pytest.mark.parametrize("sampler", ["InfiniteSampler", "DefaultSampler"])
@pytest.mark.parametrize("resumed", [False, True])
def test_the_batch_that_is_named_is_the_batch_that_was_seen(tmp_path, sampler, resumed):
    """The sampler is asked again; the data set remembers what it was asked for."""
    data = ToyData(22)
    loader = {"batch_size": 4, "dataset": data, "sampler": {"type": sampler, "shuffle": True}}
    config = spoilt_config(tmp_path, (), train_dataloader=loader)
    config["train_cfg"] = {"type": "IterBasedTrainLoop", "max_iters": 15, "val_interval": 100}
    if resumed:
        Runner.from_cfg({**config, "train_cfg": {**config["train_cfg"], "max_iters": 10}}).train()
        data.seen.clear()
    runner = Runner.from_cfg({**config, "resume": resumed})
    runner.train()
    first = 10 if resumed else 0
    place = 0
    for iteration in range(first, 15):
        files = batch_files(runner, iteration)
        assert files == [f"sample {i}" for i in data.seen[place : place + len(files)]], iteration
        place += len(files)
    assert place == len(data.seen)


def test_a_foreign_sampler_has_no_names(tmp_path):
    loader = torch.utils.data.DataLoader(
        ToyData(), 4, collate_fn=lambda batch: {k: [b[k] for b in batch] for k in batch[0]}
    )
    with pytest.raises(NonFiniteLossError, match=r"in iteration 3; its images are unknown"):
        Runner.from_cfg(spoilt_config(tmp_path, (3,), train_dataloader=loader)).train()


class Late(OptimWrapper):
    """As on a GPU: the loss is not looked at before the step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.policy.look = lambda loss: None


def test_a_gpu_finds_it_at_the_log_line_and_never_saves_over_a_good_file(tmp_path):
    hooks = {"logger": {"interval": 10}, "checkpoint": {"interval": 4}, "visualization": None}
    wrapper = {"type": Late, "optimizer": {"type": "AdamW", "lr": 0.05}}
    config = spoilt_config(tmp_path, (6, 9), optim_wrapper=wrapper, default_hooks=hooks)
    with pytest.raises(NonFiniteLossError, match=r"nan in iteration 6; .*found after iteration 8"):
        Runner.from_cfg(config).train()
    assert (
        torch.load(tmp_path / "iter_4.pth", weights_only=True)["state_dict"]["layer.weight"]
        .isfinite()
        .all()
    )
    assert not (tmp_path / "iter_8.pth").exists()
    saved = torch.load(tmp_path / "nonfinite_iter_6.pth", weights_only=True)
    assert saved["nonfinite"]["weights_after_iter"] == saved["meta"]["iter"] == 8
    del config["default_hooks"]["checkpoint"]["interval"]
    config["train_cfg"] = {"max_iters": 20, "val_interval": 20}
    with pytest.raises(NonFiniteLossError, match=r"in iteration 6; .*found after iteration 10"):
        Runner.from_cfg({**config, "work_dir": str(tmp_path / "b")}).train()


def test_skipping_takes_no_step_and_counts(tmp_path):
    wrapper = {"optimizer": {"type": "AdamW", "lr": 0.05}, "nonfinite_loss": "skip"}
    at = (3, 4, 12)
    runner = Runner.from_cfg(spoilt_config(tmp_path, at, optim_wrapper=wrapper))
    seen = []
    step = runner.model.train_step

    def spy(data, optim_wrapper):
        before = state(runner)
        out = step(data, optim_wrapper)
        changed = not torch.equal(before["layer.weight"], runner.model.layer.weight)
        seen.append((changed, all(torch.equal(before[k], v) for k, v in state(runner).items())))
        return out

    runner.model.train_step = spy
    runner.train()
    assert [i + 1 for i, (changed, _) in enumerate(seen) if not changed] == list(at)
    assert [i + 1 for i, (_, same) in enumerate(seen) if same] == list(at)  # batch norm, too
    assert all(v.isfinite().all() for v in state(runner).values())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    train = {line["iter"]: line for line in lines if line["mode"] == "train"}
    assert [train[i].get("skipped_steps") for i in (5, 10, 15, 20)] == [2, 2, 3, 3]
    assert all(line["loss"] is not None for line in train.values())
    log = (tmp_path / "log.txt").read_text()
    assert (
        "2 iterations with a loss that is not finite took no step (2 so far), the first: iteration 3"
        in log
    )
    assert "iteration 12: the loss is nan, no step: its images: sample" in log
    assert "in all 3 optimiser steps were skipped" in log


def test_the_count_of_skipped_steps_survives_a_resume(tmp_path):
    wrapper = {"optimizer": {"type": "AdamW", "lr": 0.05}, "nonfinite_loss": "skip"}
    config = spoilt_config(tmp_path, (3,), optim_wrapper=wrapper)
    Runner.from_cfg({**config, "train_cfg": {"max_iters": 10, "val_interval": 10}}).train()
    config["resume"] = True
    Runner.from_cfg(config).train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["mode"] == "train"][-1]["skipped_steps"] == 2


def test_an_accumulation_group_with_a_bad_loss_takes_no_step():
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    wrapper = OptimWrapper(optimizer, accumulative_counts=2, nonfinite_loss="skip")
    before = layer.weight.clone()
    for factor in (math.nan, 1.0, 1.0, 1.0):
        with wrapper.optim_context(layer):
            loss = layer(torch.ones(1, 1)).sum() * factor
        wrapper.update_params(loss)
        if wrapper.inner_count == 2:
            assert torch.equal(layer.weight, before)
            assert layer.weight.grad is None
    assert torch.equal(layer.weight, before - 1.0)
    assert wrapper.policy.skipped == 1


def test_hundred_bad_steps_in_a_row_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(SkipNonFinite, "IN_A_ROW", 5)
    wrapper = {"optimizer": {"type": "AdamW", "lr": 0.05}, "nonfinite_loss": "skip"}
    config = spoilt_config(tmp_path, range(4, 20), optim_wrapper=wrapper)
    with pytest.raises(NonFiniteLossError, match="in iteration 8"):
        Runner.from_cfg(config).train()


def test_unknown_policies(tmp_path):
    wrapper = {"optimizer": {"type": "AdamW", "lr": 0.05}, "nonfinite_loss": "ignore"}
    with pytest.raises(
        ConfigError, match=r"optim_wrapper\.nonfinite_loss: expected 'stop' or 'skip'"
    ):
        Runner.from_cfg(spoilt_config(tmp_path, (), optim_wrapper=wrapper)).train()
    make_folder(tmp_path)
    config = folder_config(tmp_path)
    config["val_dataloader"]["dataset"] |= {"on_error": "skip"}
    with pytest.raises(ConfigError, match=r"on_error: 'skip' would count another sample twice"):
        Runner.from_cfg({**config, "work_dir": str(tmp_path / "w")}).train()
    config["val_dataloader"]["dataset"]["test_mode"] = False
    with pytest.raises(ConfigError, match=r"val_dataloader\.dataset\.on_error: 'skip' would"):
        Runner.from_cfg({**config, "work_dir": str(tmp_path / "w")}).train()


# ---- files that cannot be used -----------------------------------------------------------------


def damaged_folder(root, count=12):
    """The images 1 and 3 are empty, the mask of 5 is truncated."""
    make_folder(root, count)
    for i in (1, 3):
        (root / f"images/train/{i}.png").write_bytes(b"")
    path = root / "masks/train/5.png"
    path.write_bytes(path.read_bytes()[:50])
    return root


def dataset(root, **options):
    prefix = {"img_path": "images/train", "seg_map_path": "masks/train"}
    classes = {"classes": ["dark", "bright"]}
    flip = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PackSegInputs"},
    ]
    return BaseSegDataset(
        data_root=root, data_prefix=prefix, metainfo=classes, pipeline=flip, **options
    )


def test_a_damaged_file_is_an_error_by_default(tmp_path):
    damaged_folder(tmp_path)
    with pytest.raises(DataError, match=r"\.png: corrupt or truncated"):
        dataset(tmp_path)  # one of those that are looked at first
    make_folder(tmp_path, 30)
    (tmp_path / "images/train/3.png").write_bytes(b"")
    data = dataset(tmp_path)
    place = next(i for i, d in enumerate(data.data_list) if d["img_path"].endswith("/3.png"))
    with pytest.raises(DataError, match=r"3\.png: corrupt or truncated"):
        data[place]


def test_replacements_depend_on_seed_epoch_and_index_only(tmp_path):
    data = dataset(damaged_folder(tmp_path), on_error="skip")
    whole = dataset(make_folder(tmp_path / "whole", 12))

    def picked(key):
        sample = data[key]
        return sample["data_samples"].img_path, sample["inputs"]

    for place, info in enumerate(data.data_list):
        bad = any(info["img_path"].endswith(f"/{i}.png") for i in (1, 3, 5))
        first = picked(SampleKey(place, 4, 7))
        picked(SampleKey(0, 1, 1))
        again = picked(SampleKey(place, 4, 7))
        assert first[0] == again[0]
        assert torch.equal(first[1], again[1])
        assert (first[0] != info["img_path"]) == bad
        if not bad:  # the others see nothing of it
            assert torch.equal(first[1], whole[SampleKey(place, 4, 7)]["inputs"])
    places = {picked(SampleKey(1, epoch, 7))[0] for epoch in range(20)}
    assert len(places) > 3
    assert all(f"/{i}.png" not in path for path in places for i in (1, 3, 5))
    take_skips()


def test_a_replacement_does_not_depend_on_how_far_the_failure_got(tmp_path):
    data = dataset(damaged_folder(tmp_path), on_error="skip")
    place = next(i for i, d in enumerate(data.data_list) if d["img_path"].endswith("/1.png"))
    picked = []
    for draws in (0, 5):
        data.pipeline.transforms[0:0] = [
            lambda r, draws=draws: r | {"drawn": r["rng"].random(draws)}
        ]
        picked.append(data[SampleKey(place, 0, 0)]["data_samples"].img_path)
        del data.pipeline.transforms[0]
    assert picked[0] == picked[1]
    take_skips()


def test_what_the_parent_has_noted_is_not_noted_again_by_workers(tmp_path):
    data = dataset(make_folder(tmp_path, 4), on_error="skip")
    take_skips()
    note_skip("of the parent")
    list(build_dataloader({"dataset": data, "batch_size": 1, "num_workers": 2}, seed=0))
    assert take_skips() == ["of the parent"]


@pytest.mark.parametrize("workers", [0, 2])
def test_replacements_are_counted_through_workers(tmp_path, workers):
    data = dataset(damaged_folder(tmp_path), on_error="skip")
    take_skips()
    batches = build_dataloader(
        {
            "dataset": data,
            "batch_size": 4,
            "num_workers": workers,
            "sampler": {"type": "DefaultSampler"},
        },
        seed=0,
    )
    seen = [sample.img_path for batch in batches for sample in batch["data_samples"]]
    notes = take_skips()
    assert len(seen) == 12
    assert {note.split(".png")[0][-1] for note in notes} == {"1", "3", "5"}
    alone = build_dataloader({"dataset": data, "batch_size": 4}, seed=0)
    assert [s.img_path for b in alone for s in b["data_samples"]] == seen
    assert take_skips() == notes


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_over_damaged_files_counts_and_resumes_exactly(tmp_path, workers):
    damaged_folder(tmp_path / "data")
    config = folder_config(tmp_path / "data")
    config["train_dataloader"] |= {"num_workers": workers, "persistent_workers": False}
    config["train_dataloader"]["dataset"]["on_error"] = "skip"
    config |= {
        "quiet": True,
        "param_scheduler": [],
        "default_hooks": {"logger": {"interval": 5}, "checkpoint": {"interval": 10}},
    }
    whole = Runner.from_cfg({**config, "work_dir": str(tmp_path / "a")})
    whole.train()
    half = {
        **config,
        "train_cfg": {"max_iters": 10, "val_interval": 10},
        "work_dir": str(tmp_path / "b"),
    }
    Runner.from_cfg(half).train()
    resumed = Runner.from_cfg({**config, "work_dir": str(tmp_path / "b"), "resume": True})
    resumed.train()
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key])
    counts = [
        [
            json.loads(x).get("replaced_samples")
            for x in (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in "ab"
    ]
    assert counts[0][-2] == counts[1][-2] > 0
    log = (tmp_path / "a" / "log.txt").read_text()
    assert "1.png: corrupt or truncated, the file is empty" in log
    assert "samples could not be used and were replaced by others (" in log
    assert "samples were replaced by others; log.txt names the files" in log


def test_nothing_but_damaged_files_is_an_error(tmp_path):
    make_folder(tmp_path, 3)
    for path in (tmp_path / "images/train").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        dataset(tmp_path, on_error="skip")
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(tmp_path / "images/train/0.png")
    data = dataset(tmp_path, on_error="skip", max_refetch=2)
    (tmp_path / "images/train/0.png").write_bytes(b"")
    with pytest.raises(UserError, match="the file is empty"):
        data[SampleKey(0, 0, 0)]
    take_skips()
