"""Every file in examples/ runs."""

# SPDX-License-Identifier: Apache-2.0
import math
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return lambda name: runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_smp(run):
    pytest.importorskip("segmentation_models_pytorch")
    assert 0 < run("smp_training_loop")(["--steps", "2"]) < 1


def test_torchmetrics(run):
    pytest.importorskip("torchmetrics")
    scores = run("torchmetrics_iou")()
    assert 0 < scores["miou"] < 1
    assert scores["loss"] == pytest.approx(math.log(5), abs=0.5)


def test_transformers(run, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    # tests/datasets is on pytest's path, and is not the package of that name
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)
    scores = run("transformers_segformer")(["--epochs", "0.25", "--out", str(tmp_path)])
    assert 0 < scores["eval_mean_iou"] < 1
    assert "eval_iou_circle" in scores


def test_lightning(run, tmp_path):
    pytest.importorskip("lightning")
    scores = run("lightning_training")(["--epochs", "1", "--out", str(tmp_path)])
    assert 0 < scores["val_iou"] < 1


def test_mmseg(run, tmp_path):
    pytest.importorskip("mmseg")
    scores = run("mmseg_training")(["--iters", "3", "--out", str(tmp_path)])
    assert 0 < scores["mIoU"] < 100


def test_none_is_forgotten():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    scripts = {path.stem.split("_")[0] for path in EXAMPLES.glob("*_*.py")}
    assert scripts <= tested
