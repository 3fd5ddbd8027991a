"""train, test and predict on a folder of tiny pictures."""

# SPDX-License-Identifier: Apache-2.0

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny_data import folder_config, make_folder

import segfast
from segfast.errors import CheckpointError, ConfigError, DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    return segfast.train(folder_config(root), work_dir=tmp_path_factory.mktemp("run"))


def test_train_learns_and_leaves_everything(trained):
    assert trained.metrics["mIoU"] > 95
    work_dir = Path(trained.work_dir)
    assert {"config.yaml", "log.txt", "metrics.jsonl", "last_checkpoint", "pictures"} <= {
        path.name for path in work_dir.iterdir()
    }
    assert trained.checkpoint == str(work_dir / "iter_20.pth")
    assert Path(trained.best_checkpoint).name in ("best_mIoU_iter_10.pth", "best_mIoU_iter_20.pth")
    assert Path(trained.best_checkpoint).is_file()
    lines = [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["iter"] for line in lines if line["mode"] == "val"] == [10, 20]
    assert lines[-1]["mIoU"] == pytest.approx(trained.metrics["mIoU"])
    log = (work_dir / "log.txt").read_text()
    assert "bright" in log  # the per-class table


def test_the_picture_shows_truth_and_prediction(trained):
    with Image.open(Path(trained.work_dir) / "pictures" / "val_iter_20.png") as picture:
        colours = {colour for _, colour in picture.getcolors(100000)}
    assert {(0, 0, 90), (250, 250, 0)} <= colours


def test_resolved_config_reloads_and_trains_the_same(trained, tmp_path):
    config = Path(trained.work_dir) / "config.yaml"
    again = segfast.train(config, work_dir=tmp_path)
    assert again.metrics == trained.metrics
    for first, second in zip(again.model.parameters(), trained.model.parameters(), strict=True):
        assert torch.equal(first, second)


def test_overrides_and_default_schedule(root, tmp_path):
    config = folder_config(root)
    del config["val_dataloader"], config["train_cfg"]
    result = segfast.train(config, work_dir=tmp_path, overrides={"train_cfg.max_iters": 3})
    assert Path(result.checkpoint).name == "iter_3.pth"
    assert result.best_checkpoint is None
    assert result.metrics == {}


def test_test_reaches_the_metrics_of_training(root, trained, tmp_path):
    metrics = segfast.test(folder_config(root), trained.checkpoint, work_dir=tmp_path)
    assert metrics == trained.metrics


def test_test_with_another_number_of_classes(root, trained, tmp_path):
    net = {"type": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 3, "kernel_size": 1}
    config = folder_config(root, net=net, num_classes=3)
    config["val_dataloader"]["dataset"]["metainfo"]["classes"] = ("a", "b", "c")
    config["val_dataloader"]["dataset"]["metainfo"]["palette"] = [(0, 0, 0)] * 3
    with pytest.raises(
        CheckpointError, match=r"net.weight is \(2, 3, 1, 1\) there but \(3, 3, 1, 1\)"
    ):
        segfast.test(config, trained.checkpoint, work_dir=tmp_path)


@pytest.mark.parametrize("kind", ["path", "folder", "pil", "array", "tensor"])
def test_predict_takes_any_image(root, trained, kind):
    path = root / "images" / "val" / "1.png"
    array = np.asarray(Image.open(path).convert("RGB"))
    images = {
        "path": str(path),
        "folder": path.parent,
        "pil": Image.open(path),
        "array": [array, array[:8]],
        "tensor": torch.from_numpy(array.copy()).permute(2, 0, 1),
    }[kind]
    samples = segfast.predict(trained.checkpoint, images, device="cpu")
    assert len(samples) == {"folder": 6, "array": 2}.get(kind, 1)
    truth = np.asarray(Image.open(root / "masks" / "val" / "1.png"))
    pred = samples[1 if kind == "folder" else 0].pred_sem_seg.data
    assert pred.shape == (1, *truth.shape)
    assert pred.dtype == torch.int64
    assert (pred[0].numpy() == truth).mean() > 0.95
    assert samples[0].metainfo["classes"] == ["dark", "bright"]


def test_predict_reads_colours_in_the_right_order(tmp_path):
    """A net that passes the channels on: a red picture is class 0 only if R, G, B arrive as R, G, B."""
    net = torch.nn.Identity()
    preprocessor = {"type": "SegDataPreProcessor", "bgr_to_rgb": True}
    model = segfast.Segmentor(net=net, data_preprocessor=preprocessor)
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(tmp_path / "red.png")
    for image in (red, Image.fromarray(red), tmp_path / "red.png"):
        (sample,) = segfast.predict(model, [image])
        assert (sample.pred_sem_seg.data == 0).all()


def test_pretrained_weights_need_not_be_there_to_predict(root, trained, tmp_path):
    state = torch.load(trained.checkpoint, weights_only=True)
    config = yaml.safe_load(state["meta"]["cfg"])
    config["model"]["encoder_weights"] = str(tmp_path / "gone.pth")
    state["meta"]["cfg"] = yaml.safe_dump(config)
    torch.save(state, tmp_path / "moved.pth")
    assert len(segfast.predict(tmp_path / "moved.pth", root / "images" / "val", device="cpu")) == 6
    with pytest.raises(CheckpointError, match=r"gone\.pth"):  # training from them does need them
        segfast.train(config, work_dir=tmp_path)


def test_wrong_inputs_of_predict(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n")
    for images, text in [
        (tmp_path / "none.png", "none.png: no such image"),
        (tmp_path / "empty", "empty: no images in this folder"),
        (tmp_path / "torn.png", "torn.png"),
        (np.zeros((3, 3)), r"expected a path, a PIL image"),
    ]:
        with pytest.raises(DataError, match=text):
            segfast.predict(trained.checkpoint, images, device="cpu")
    torch.save({"state_dict": {}}, tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match="carries no config"):
        segfast.predict(tmp_path / "bare.pth", [])


def test_a_model_given_as_an_object_trains_but_is_not_rebuilt(root, tmp_path):
    net = torch.nn.Conv2d(3, 2, 1)
    config = folder_config(root, net=net)
    result = segfast.train(config, work_dir=tmp_path, overrides={"train_cfg.max_iters": 2})
    assert result.model.net is net
    with pytest.raises(CheckpointError, match=r"cannot be rebuilt .* model.net: .*built by hand"):
        segfast.predict(result.checkpoint, [])


def test_load_from_starts_with_the_weights(root, trained, tmp_path):
    overrides = {"train_cfg.max_iters": 1, "optim_wrapper.optimizer.lr": 0.0}
    result = segfast.train(
        folder_config(root), work_dir=tmp_path, load_from=trained.checkpoint, overrides=overrides
    )
    for first, second in zip(result.model.parameters(), trained.model.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(("overrides", "text"), [
    ({"device": "cuda:99"}, "^device: torch cannot use"),
    ({"device": "gpu"}, "^device: torch cannot use 'gpu'"),
    ({"randomness": {"sed": 1}}, "^randomness.sed: unknown .*did you mean seed"),
    ({"randomness.seed": "abc"}, "^randomness.seed: expected an integer"),
    ({"work_dir": "/proc/nowhere/x"}, "^work_dir: cannot create"),
])  # fmt: skip
def test_environment_errors_name_the_key(root, tmp_path, overrides, text):
    config = {"work_dir": str(tmp_path), **folder_config(root)}
    with pytest.raises(ConfigError, match=text):
        segfast.train(config, overrides=overrides)


def test_pictures_and_numbers_reach_the_backends(tmp_path):
    """The visualizer of mmseg's default_runtime.py; its backends write below the work_dir."""
    backends = [{"type": "LocalVisBackend"}]
    config = folder_config(make_folder(tmp_path / "data"))
    config["visualizer"] = {
        "type": "SegLocalVisualizer",
        "vis_backends": backends,
        "name": "visualizer",
    }
    config["default_hooks"]["visualization"] = {
        "type": "SegVisualizationHook",
        "interval": 1,
        "show": False,
    }
    segfast.train(config, work_dir=tmp_path / "run")
    data = tmp_path / "run" / "vis_data"
    assert (data / "vis_image" / "validation_20.png").is_file()
    lines = [json.loads(line) for line in (data / "scalars.json").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [5, 10, 15, 20]
    assert [line["step"] for line in lines if "val/mIoU" in line] == [10, 20]
