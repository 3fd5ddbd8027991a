"""The command line as a beginner meets it: the whole path once, and ten mistakes, each answered in one line."""

# SPDX-License-Identifier: Apache-2.0

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segfast.cli import main
from segfast.datasets import write_shapes

CLASSES = ["background", "circle", "square", "triangle", "ring"]


@pytest.fixture
def folder(tmp_path):
    """A data set in two folders, and a config that trains on it for two iterations."""
    for split, count in (("train", 6), ("val", 3)):
        write_shapes(tmp_path / "data" / split, num_images=count, size=48)
    return tmp_path


def config(folder, **changes):
    """Write the config with dotted `changes` and return its path."""

    def data(split):
        return {
            "batch_size": 2,
            "dataset": {
                "type": "BaseSegDataset",
                "data_root": str(folder / "data" / split),
                "metainfo": {"classes": CLASSES},
            },
        }

    cfg = {
        "model": {
            "type": "Segmentor",
            "net": {"type": "SegNetS", "num_classes": 5, "width": 4},
            "num_classes": 5,
        },
        "train_dataloader": data("train"),
        "val_dataloader": data("val"),
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 2, "val_interval": 2},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01}},
        "work_dir": str(folder / "work"),
        "device": "cpu",
        "randomness": {"seed": 0},
    }
    for dotted, value in changes.items():
        node = cfg
        *parents, last = dotted.split("__")
        for parent in parents:
            node = node[parent]
        node[last] = value
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(cfg))
    return str(path)


def images(folder):
    return sorted((folder / "data" / "train" / "images").iterdir())


def masks(folder):
    return sorted((folder / "data" / "train" / "masks").iterdir())


def test_train_test_predict(folder, capsys):
    assert main(["train", config(folder), "--seed", "1", "train_cfg.max_iters=4"]) == 0
    work = folder / "work"
    out = capsys.readouterr().out
    assert "circle" in out  # the per-class table
    assert f"everything is in {work}" in out.splitlines()[-1]
    resolved = yaml.safe_load((work / "config.yaml").read_text())
    assert resolved["train_cfg"]["max_iters"] == 4
    assert resolved["randomness"]["seed"] == 1
    lines = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["mode"] == "val"
    assert (work / "iter_4.pth").is_file()
    assert len(list(work.glob("best_mIoU_iter_*.pth"))) == 1
    assert len(list((work / "pictures").glob("val_iter_*.png"))) == 2

    assert (
        main(["test", config(folder), str(work / "iter_4.pth"), "--work-dir", str(folder / "test")])
        == 0
    )
    tested = json.loads((folder / "test" / "metrics.jsonl").read_text().splitlines()[-1])
    assert tested["mIoU"] == lines[-1]["mIoU"]

    assert (
        main(
            [
                "predict",
                str(work / "iter_4.pth"),
                str(folder / "data" / "val" / "images"),
                "--out",
                str(folder / "out"),
            ]
        )
        == 0
    )
    predicted = sorted((folder / "out" / "masks").iterdir())
    assert len(predicted) == len(list((folder / "out" / "pictures").iterdir())) == 3
    assert np.asarray(Image.open(predicted[0])).shape == (48, 48)
    assert np.asarray(Image.open(predicted[0])).max() < 5

    # The resolved config trains again, and --resume goes on where the run stopped.
    assert main(["train", str(work / "config.yaml"), "--resume", "train_cfg.max_iters=6"]) == 0
    assert "at iteration 4" in (work / "log.txt").read_text()


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    assert f"torch {torch.__version__}" in capsys.readouterr().out


def fails(arguments, capsys):
    """The one line of a command that must exit with status 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    error = captured.err.strip().splitlines()[-1]
    assert error.startswith("segfast: error: ")
    assert "Traceback" not in captured.err
    return error


def test_mistake_missing_folder(folder, capsys):
    error = fails(
        ["train", config(folder, train_dataloader__dataset__data_root=str(folder / "nowhere"))],
        capsys,
    )
    assert str(folder / "nowhere") in error


def test_mistake_mask_of_another_size(folder, capsys):
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(masks(folder)[2])
    error = fails(["train", config(folder)], capsys)
    assert masks(folder)[2].name in error
    assert "48" in error
    assert "20" in error


def test_mistake_0_255_mask_without_mapping(folder, capsys):
    for path in masks(folder):
        Image.fromarray(((np.asarray(Image.open(path)) > 0) * 255).astype(np.uint8)).save(path)
    changes = {
        "train_dataloader__dataset__metainfo": {"classes": ["no", "yes"]},
        "model__num_classes": 2,
    }
    changes["model__net__num_classes"] = 2
    error = fails(["train", config(folder, **changes)], capsys)
    assert "label_map" in error
    assert "255: 1" in error


def test_mistake_rgb_mask(folder, capsys):
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(masks(folder)[1])
    error = fails(["train", config(folder)], capsys)
    assert masks(folder)[1].name in error
    assert "index" in error


def test_mistake_label_out_of_range(folder, capsys):
    labels = np.asarray(Image.open(masks(folder)[3])).copy()
    labels[5, 5] = 200
    Image.fromarray(labels).save(masks(folder)[3])
    error = fails(["train", config(folder)], capsys)
    assert masks(folder)[3].name in error
    assert "200" in error


def test_mistake_wrong_num_classes(folder, capsys):
    error = fails(["train", config(folder, model__net__num_classes=4)], capsys)
    assert "num_classes" in error
    assert "4" in error
    assert "5" in error


def test_mistake_misspelt_key(folder, capsys):
    error = fails(["train", config(folder), "train_cfg.max_itres=3"], capsys)
    assert "train_cfg.max_itres" in error
    assert "max_iters" in error
    error = fails(["train", config(folder), "optim_wraper.optimizer.lr=3"], capsys)
    assert "optim_wrapper" in error


def test_mistake_misspelt_type(folder, capsys):
    error = fails(["train", config(folder, model__net__type="SegNetX")], capsys)
    assert "model.net.type" in error
    assert "SegNetS" in error


def test_mistake_corrupt_image(folder, capsys):
    victim = images(folder)[4].with_suffix(".jpg")
    images(folder)[4].unlink()
    victim.write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    error = fails(["train", config(folder)], capsys)
    assert victim.name in error


def test_mistake_empty_folder(folder, capsys):
    for path in images(folder):
        path.unlink()
    error = fails(["train", config(folder)], capsys)
    assert str(folder / "data" / "train" / "images") in error


def test_mistakes_with_checkpoints_and_arguments(folder, capsys):
    assert "no checkpoint" in fails(
        ["predict", str(folder / "x.pth"), str(folder), "--out", str(folder)], capsys
    )
    assert "one CONFIG" in fails(["train", "a.py", "b.py"], capsys)
    with pytest.raises(SystemExit) as status:
        main(["train", "--nonsense"])
    assert status.value.code == 2


def test_a_worker_process_reports_in_one_line(folder):
    """A file that breaks in a worker: the same line, from a real process."""
    labels = np.asarray(Image.open(masks(folder)[3])).copy()
    path = config(folder, train_dataloader__num_workers=1)
    labels[:] = 99
    Image.fromarray(labels).save(masks(folder)[3])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "segfast", "train", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("segfast: error: ")
    assert "Traceback" not in done.stderr
    assert masks(folder)[3].name in done.stderr


def test_an_interrupt_without_words(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("segfast.check_data.check_data", stop)
    assert main(["check-data"]) == 130
    assert capsys.readouterr().err == "segfast: interrupted\n"


@pytest.mark.parametrize("value", ["-1", "x", "1.5"])
def test_workers_are_a_number(value, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["check-data", "--workers", value])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("segfast: error: ")
    assert len(error.splitlines()) == 1
