"""Names from configs, checkpoints and images stay in their folder."""

# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from PIL import Image
from runner.toys import ToyMetric, toy_config

from segfast.datasets import LoadImageFromFile
from segfast.errors import ConfigError, UserError
from segfast.evaluation import IoUMetric
from segfast.paths import inside, is_plain_name
from segfast.predictions import _save, output_names, write_predictions
from segfast.runner import CheckpointHook, Runner
from segfast.structures import PixelData, SegDataSample
from segfast.visualization import LocalVisBackend, SegLocalVisualizer

OUTSIDE = ["../x", "/etc/x", "a/../../x", "..", "", "a\0b"]


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside(tmp_path, name):
    with pytest.raises(UserError, match="names no file in"):
        inside(tmp_path / "out", name)
    assert not is_plain_name(name)


def test_inside_and_links(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert inside(out, "a/b.png") == out / "a" / "b.png"
    (out / "link").symlink_to(tmp_path)
    (out / "file.png").symlink_to(tmp_path / "precious")
    (out / "own").symlink_to(out)
    for name in ("link/x.png", "file.png"):
        with pytest.raises(UserError, match="a symbolic link leads out of"):
            inside(out, name)
    assert inside(out, "own/x.png") == out / "own" / "x.png"
    assert is_plain_name("iter_1.pth")
    assert not is_plain_name("a/b")
    assert not is_plain_name(3)


@pytest.mark.parametrize(
    "template",
    [
        "../{}.pth",
        "/tmp/{}.pth",
        "a/{}.pth",
        "iter.pth",
        "{",
        "{1}",
        "{0.x}",
        "{:>9999}",
        "..",
        "{}\0",
    ],
)
def test_names_of_checkpoints(template):
    with pytest.raises(ConfigError, match="filename_tmpl"):
        CheckpointHook(filename_tmpl=template)


class Named(ToyMetric):
    """A metric whose name leads elsewhere."""

    def compute_metrics(self, results):
        return {"../../../acc": 1.0, "/etc/acc": 1.0}


def test_names_of_metrics_and_experiments(tmp_path):
    hooks = {
        "checkpoint": {
            "save_best": ["../../../acc", "/etc/acc"],
            "rule": "greater",
            "interval": 10,
        },
        "visualization": None,
    }
    config = toy_config(
        tmp_path / "work",
        val_evaluator={"type": Named},
        default_hooks=hooks,
        experiment_name="../../name",
    )
    Runner.from_cfg(config).train()
    written = everything(tmp_path)
    assert all(name.startswith("work/") for name in written)
    assert {"work/best_.._.._.._acc_iter_10.pth", "work/best__etc_acc_iter_10.pth"} <= set(written)


def test_out_dir_of_a_work_dir_that_climbs(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    hooks = {
        "checkpoint": {"out_dir": str(tmp_path / "out"), "interval": 10},
        "visualization": None,
    }
    Runner.from_cfg(toy_config("..", default_hooks=hooks)).train()
    saved = [name for name in everything(tmp_path) if name.endswith(".pth")]
    assert len(saved) >= 2
    assert all(name.startswith("out/a/") for name in saved)


def test_a_resumed_checkpoint_names_no_other_files(tmp_path):
    """The hook deletes what a checkpoint says was kept: only checkpoints of its folder."""
    work = tmp_path / "work"
    config = toy_config(work, train_cfg={"max_iters": 10, "val_interval": 10})
    Runner.from_cfg(config).train()
    precious = [tmp_path / "precious.pth", work / "notes.txt", work / "sub.pth"]
    for path in precious[:2]:
        path.write_text("x")
    precious[2].mkdir()
    state = torch.load(work / "iter_10.pth", weights_only=True)
    names = ["../precious.pth", str(tmp_path / "precious.pth"), "notes.txt", "..", "", 3, None]
    state["checkpoint_hook"]["kept"] = names
    state["checkpoint_hook"]["best"] = {
        f"aAcc{i}": {"score": -1.0, "name": name} for i, name in enumerate(names[:5])
    } | {"aAcc": {"score": -1e9, "name": "../precious.pth"}}
    torch.save(state, work / "iter_10.pth")
    Runner.from_cfg(
        {**config, "train_cfg": {"max_iters": 20, "val_interval": 10}, "resume": True}
    ).train()
    assert all(path.exists() for path in precious)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x"])
def test_names_of_pictures(tmp_path, name):
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(UserError, match="names no file in"):
        LocalVisBackend(tmp_path / "out").add_image(name, image)
    with pytest.raises(UserError, match="names no file in"):
        SegLocalVisualizer(save_dir=tmp_path / "out").add_datasample(name, image)
    assert everything(tmp_path) == []
    LocalVisBackend(tmp_path / "out").add_image("val/x", image)
    assert everything(tmp_path) == ["out/vis_image/val/x_0.png"]


def test_names_of_predictions(tmp_path):
    for name in ("a/1.png", "b/1.png", "b/2.jpg", "b/2.png", "b/c/1.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    below = {str(v.relative_to(tmp_path)): k for k, v in output_names([tmp_path]).items()}
    assert below == {
        "a/1.png": "a/1", "b/1.png": "b/1", "b/2.jpg": "b/2.jpg", "b/2.png": "b/2.png", "b/c/1.png": "b/c/1",
    }  # fmt: skip
    assert list(output_names([tmp_path / "a/1.png", tmp_path / "a"])) == ["1"]
    with pytest.raises(
        UserError, match=r"b/1\.png and .*a/1\.png would both be written as 1\.png\.png"
    ):
        output_names([tmp_path / "a", tmp_path / "b/1.png"])
    (tmp_path / "out").symlink_to(tmp_path / "b")
    (tmp_path / "b/2.png").unlink()
    (tmp_path / "b/2.png").symlink_to(tmp_path / "a/1.png")
    before = (tmp_path / "a/1.png").read_bytes()
    with pytest.raises(UserError, match="symbolic link"):
        _save(np.zeros((2, 2), np.uint8), tmp_path / "b", "2.png")
    assert (tmp_path / "a/1.png").read_bytes() == before


def test_predictions_replace_nothing_but_predictions(tmp_path, monkeypatch):
    """`predict x.pth d/images --out d`, where d/masks are the labels that somebody drew."""
    for name in ("images/a.png", "images/b.png", "masks/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), 3).save(tmp_path / name)
    drawn = (tmp_path / "masks/b.png").read_bytes()
    loaded = []

    def load_model(*_, **__):
        loaded.append(1)
        return None, None, {}

    def segment(_, sources, *__):
        for _ in sources:
            data = torch.zeros(1, 4, 4, dtype=torch.int64)
            yield SegDataSample(pred_sem_seg=PixelData(data=data))

    monkeypatch.setattr("segfast.predictions.load_model", load_model)
    monkeypatch.setattr("segfast.predictions.segment", segment)
    images = [str(tmp_path / "images")]
    before = everything(tmp_path)
    with pytest.raises(
        UserError, match=r"masks/b\.png is there, was not written by segfast predict"
    ):
        write_predictions("x.pth", images, tmp_path)
    assert loaded == []
    assert everything(tmp_path) == before
    assert (tmp_path / "masks/b.png").read_bytes() == drawn
    for _ in range(2):  # again is fine
        assert write_predictions("x.pth", images, tmp_path / "out") == 2
    pictures = [str(tmp_path / "out/pictures")]
    with pytest.raises(UserError, match=r"pictures/a\.png is one of the images to segment"):
        write_predictions("x.pth", pictures, tmp_path / "out")
    (tmp_path / "out/masks/a.png").write_bytes(b"notes")
    with pytest.raises(UserError, match=r"masks/a\.png is there, was not written"):
        write_predictions("x.pth", images, tmp_path / "out")


def test_pictures_of_predictions_lie_as_the_pipeline_loads_them(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    for kind, size in (("color", (8, 4)), ("unchanged", (4, 8))):
        load = LoadImageFromFile(color_type=kind)
        monkeypatch.setattr(
            "segfast.predictions.load_model", lambda *_, load=load, **__: (None, [load], {})
        )
        sample = SegDataSample(
            pred_sem_seg=PixelData(data=torch.zeros(1, *size, dtype=torch.int64))
        )
        monkeypatch.setattr("segfast.predictions.segment", lambda *_, sample=sample: [sample])
        assert write_predictions("x.pth", [str(tmp_path / "a.jpg")], tmp_path / kind) == 1
        assert Image.open(tmp_path / kind / "pictures/a.png").size == size[::-1]
    for images, out in (([""], "out"), ([str(tmp_path / "a.jpg")], "")):
        with pytest.raises(UserError, match="got an empty name"):
            write_predictions("x.pth", images, out)


def test_predictions_of_the_metric_never_overwrite_each_other(tmp_path):
    metric = IoUMetric(output_dir=tmp_path / "out", format_only=True)
    metric.dataset_meta = {"classes": ["a", "b"]}

    def sample(path):
        return {"pred_sem_seg": {"data": torch.zeros(1, 2, 2, dtype=torch.int64)}, "img_path": path}

    metric.process({}, [sample("a/1.png"), sample("a/2.png"), sample("a/1.png")])
    with pytest.raises(UserError, match=r"a/1\.png and b/1\.png would both be written"):
        metric.process({}, [sample("b/1.png")])
    assert everything(tmp_path) == ["out/1.png", "out/2.png"]
