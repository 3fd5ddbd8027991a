"""How long iterations take, in the records of training, validation and tests."""

# SPDX-License-Identifier: Apache-2.0

import json
import time

import pytest
from runner.toys import ToyData, ToyMetric, ToyModel, toy_config

from segfast.runner import Runner


class SlowData(ToyData):
    def __getitem__(self, index):
        time.sleep(0.01)
        return super().__getitem__(index)


class SlowModel(ToyModel):
    """Predicts slowly."""

    def val_step(self, data):
        time.sleep(0.04)
        return super().val_step(data)

    test_step = val_step


class SlowMetric(ToyMetric):
    def compute_metrics(self, results):
        time.sleep(0.09)
        return super().compute_metrics(results)


@pytest.mark.parametrize("mode", ["val", "test"])
def test_evaluation_times_are_per_batch(tmp_path, mode):
    loader = {"batch_size": 2, "dataset": {"type": SlowData, "size": 6}}
    parts = {f"{mode}_dataloader": loader, f"{mode}_evaluator": {"type": SlowMetric}}
    config = toy_config(tmp_path, model={"type": SlowModel}, **parts)
    getattr(Runner.from_cfg(config), mode)()
    (record,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert list(record)[-3:] == ["aAcc", "data_time", "time"]
    assert record["data_time"] >= 0.02  # two images
    assert record["time"] >= record["data_time"] + 0.04 + 0.09 / 3
    text = (tmp_path / "log.txt").read_text()
    assert f"Iter({mode}) [3/3]  aAcc: " in text
    assert "  data_time: 0.0" in text


def test_a_validation_within_training_has_its_times(tmp_path):
    Runner.from_cfg(toy_config(tmp_path, model={"type": SlowModel})).train()
    records = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    times = [record["time"] for record in records if record["mode"] == "val"]
    assert len(times) == 2
    assert min(times) > 0.04


def test_without_a_timer_there_are_no_times(tmp_path):
    config = toy_config(tmp_path)
    config["default_hooks"]["timer"] = None
    Runner.from_cfg(config).val()
    (record,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert "time" not in record
