"""Validation and tests of a Runner that has not trained."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from runner.toys import ToyData, ToyMetric, ToyModel, toy_config

from segfast.errors import ConfigError
from segfast.evaluation import Evaluator
from segfast.runner import Runner

TRAINING = ("train_dataloader", "train_cfg", "optim_wrapper")


def parts(mode):
    return {
        f"{mode}_dataloader": {"batch_size": 4, "dataset": {"type": ToyData, "size": 10}},
        f"{mode}_cfg": {},
        f"{mode}_evaluator": {"type": ToyMetric},
    }


def plain(work_dir, **others):
    """A Runner of parts, as the constructor takes them."""
    torch.manual_seed(0)
    return Runner(ToyModel(), work_dir, **others, quiet=True, device="cpu")


@pytest.mark.parametrize("mode", ["val", "test"])
def test_parts_without_training(tmp_path, mode):
    runner = plain(tmp_path, **parts(mode))
    metrics = getattr(runner, mode)()
    assert metrics == runner.metrics == getattr(runner, mode)()  # and again
    assert not list(tmp_path.glob("*.pth"))


def test_training_parts_that_do_not_train(tmp_path):
    train = {
        "train_dataloader": {"batch_size": 4, "dataset": {"type": ToyData}},
        "train_cfg": {"by_epoch": True, "max_epochs": 1},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01}},
    }
    alone = plain(tmp_path / "a", **parts("val")).val()
    runner = plain(tmp_path / "b", **parts("val"), **train)
    assert runner.val() == alone
    runner.train()
    assert runner.val() == runner.metrics != alone


@pytest.mark.parametrize("mode", ["val", "test"])
def test_a_config_without_training(tmp_path, mode):
    config = toy_config(tmp_path, **{key: None for key in TRAINING}, **parts(mode))
    runner = Runner.from_cfg(config)
    assert getattr(runner, mode)() == runner.metrics
    assert f"Iter({mode}) [3/3]  aAcc: " in (tmp_path / "log.txt").read_text()


def test_a_whole_config_that_only_validates(tmp_path):
    runner = Runner.from_cfg(toy_config(tmp_path))
    assert runner.val() == runner.metrics
    assert not list(tmp_path.glob("*.pth"))


class Doubled(Evaluator):
    """An evaluator of one's own."""

    def evaluate(self, size):
        return {name: 2 * value for name, value in super().evaluate(size).items()}


@pytest.mark.parametrize("evaluator", [
    {"type": "Evaluator", "metrics": [{"type": ToyMetric}, {"type": ToyMetric, "prefix": "b"}]},
    {"metrics": {"type": ToyMetric}},
    {"metrics": ToyMetric()},
    {"type": Doubled, "metrics": [ToyMetric()]},
    [{"type": ToyMetric}],
    ToyMetric(),
    Evaluator(ToyMetric()),
], ids=["mmengine", "no_type", "object", "own", "list", "metric", "evaluator"])  # fmt: skip
def test_forms_of_an_evaluator(tmp_path, evaluator):
    values = parts("val") | {"val_evaluator": evaluator}
    metrics = plain(tmp_path / "a", **values).val()
    single = plain(tmp_path / "b", **parts("val")).val()["aAcc"]
    own = isinstance(evaluator, dict) and evaluator.get("type") is Doubled
    assert set(metrics.values()) == {2 * single if own else single}


@pytest.mark.parametrize(("evaluator", "text"), [
    ({"type": "Evaluator", "metrics": [{"type": "IoUMetric", "iou_metric": 1}]},
     r"^val_evaluator.0.iou_metric: .*did you mean iou_metrics"),
    ({"type": "Evaluater", "metrics": []}, r"^val_evaluator.type: .*did you mean Evaluator"),
    ({"type": "IoUMetrc"}, r"^val_evaluator.type: .*did you mean IoUMetric"),
])  # fmt: skip
def test_what_is_refused_of_an_evaluator(tmp_path, evaluator, text):
    with pytest.raises(ConfigError, match=text):
        plain(tmp_path, **parts("val") | {"val_evaluator": evaluator}).val()
