"""SegVisualizationHook: the grid of a few samples, and samples handed to a visualizer as upstream does."""

# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_data import folder_config, make_folder

import segfast
from segfast.registry import VISUALIZERS
from segfast.runner import SegVisualizationHook


class Recorder:
    """A visualizer of somebody's own."""

    def __init__(self):
        self.calls, self.dataset_meta = [], None

    def add_datasample(self, name, image, data_sample=None, *, show, wait_time, step):
        self.calls.append((name, image, data_sample, show, wait_time, step, self.dataset_meta))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data"))


def run(root, work_dir, hook, visualizer, test=False):
    config = folder_config(root)
    config["visualizer"] = visualizer
    config["default_hooks"]["visualization"] = {"type": "SegVisualizationHook", **hook}
    if test:
        config["test_dataloader"] = config["val_dataloader"]
    trained = segfast.train(config, work_dir=work_dir)
    if test:
        segfast.test(config, trained.checkpoint, work_dir=work_dir / "test")
    return trained


def test_positions_are_upstreams():
    hook = SegVisualizationHook(True, 7, True, 0.5, {"backend": "local"})
    assert (hook.draw, hook.interval, hook.show, hook.wait_time) == (True, 7, True, 0.5)
    assert hook.backend_args == {"backend": "local"}
    assert hook.num_samples == 4
    with pytest.raises(TypeError):
        SegVisualizationHook(True, 7, False, 0.0, None, 4)


def test_samples_reach_a_visualizer_in_validation_and_test(root, tmp_path):
    recorder = Recorder()
    run(root, tmp_path, {"draw": True, "interval": 2, "wait_time": 0.5}, recorder, test=True)
    num_images = len(list((root / "images" / "val").iterdir()))
    each = num_images // 4 * 2  # every second batch of two
    names = [call[0] for call in recorder.calls]
    assert sum(name.startswith("val_") for name in names) == 2 * each  # two validations
    assert sum(name.startswith("test_") for name in names) == each
    assert [call[5] for call in recorder.calls] == [10] * each + [20] * each + [0] * each
    for name, image, sample, show, wait_time, _, meta in recorder.calls:
        path = Path(sample.img_path)
        assert name.split("_", 1)[1] == path.name
        np.testing.assert_array_equal(image, np.asarray(Image.open(path).convert("RGB")))
        assert sample.pred_sem_seg.shape == image.shape[:2]
        assert (show, wait_time) == (False, 0.5)
        assert meta["classes"] == ("dark", "bright")
    assert (tmp_path / "pictures" / "val_iter_20.png").is_file()


@pytest.mark.parametrize("draw", [None, False])
def test_samples_are_drawn_only_where_asked_for(root, tmp_path, draw):
    recorder = Recorder()
    run(root, tmp_path, {"draw": draw, "interval": 1}, recorder)
    assert not recorder.calls
    assert (tmp_path / "pictures").exists() == (draw is None)


def test_the_local_visualizer_writes_samples(root, tmp_path):
    visualizer = {"type": "SegLocalVisualizer", "vis_backends": [{"type": "LocalVisBackend"}]}
    run(root, tmp_path, {"draw": True, "interval": 1}, visualizer)
    written = list((tmp_path / "vis_data" / "vis_image").glob("val_*.png_20.png"))
    assert len(written) == len(list((root / "images" / "val").iterdir()))
    for path in written:
        image = root / "images" / "val" / path.name.removeprefix("val_").removesuffix("_20.png")
        width, height = Image.open(image).size
        assert Image.open(path).size == (2 * width, height)  # truth and prediction


def test_images_that_are_no_files_come_from_the_batch(tmp_path):
    recorder = Recorder()
    config = folder_config(tmp_path)
    data = {"type": "ShapesDataset", "num_images": 4, "size": 32}
    config["model"] = {**config["model"], "num_classes": 5}
    config["model"]["net"] = {**config["model"]["net"], "out_channels": 5}
    for part in ("train", "val"):
        config[f"{part}_dataloader"] = {"batch_size": 2, "dataset": data}
    config["train_cfg"] = {"max_iters": 1, "val_interval": 1}
    config["visualizer"] = recorder
    config["default_hooks"]["visualization"] = {"draw": True, "interval": 1}
    segfast.train(config, work_dir=tmp_path)
    assert len(recorder.calls) == 4
    assert all(call[1].shape == (32, 32, 3) for call in recorder.calls)


def test_the_name_is_registered():
    assert VISUALIZERS.get("SegLocalVisualizer") is segfast.SegLocalVisualizer
