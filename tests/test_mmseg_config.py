"""A config as people have them for MMSegmentation (FCN, schedule_20k) trains, is tested and predicts, unchanged."""

# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stock_config import stock_config
from tiny_data import make_folder

import segfast
from segfast.models import EncoderDecoder

SHORT = {
    "train_cfg.max_iters": 40,
    "train_cfg.val_interval": 20,
    "default_hooks.logger.interval": 10,
    "default_hooks.checkpoint.interval": 40,
    "randomness": {"seed": 0},
    "device": "cpu",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config(root):
    path = root / "fcn.py"
    text = stock_config(root, ("dark", "bright"), (32, 40), (40, 24), (48, 32))
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    return segfast.train(config, work_dir=tmp_path_factory.mktemp("run"), overrides=SHORT)


def test_it_trains_tests_and_predicts(config, trained, root, tmp_path):
    assert isinstance(trained.model, EncoderDecoder)
    assert trained.metrics["mIoU"] > 70
    log = (Path(trained.work_dir) / "metrics.jsonl").read_text(encoding="utf-8")
    names = ("decode.loss_ce", "decode.acc_seg", "aux.loss_ce", "aux.acc_seg", "mIoU", "aAcc")
    assert all(f'"{name}"' in log for name in names)
    tested = segfast.test(
        config, trained.checkpoint, work_dir=tmp_path, overrides={"device": "cpu"}
    )
    assert tested["mIoU"] == trained.metrics["mIoU"]
    image = root / "images" / "val" / "1.png"
    mask = np.asarray(Image.open(root / "masks" / "val" / "1.png"))
    for predictor in (trained.model, trained.checkpoint):
        (sample,) = segfast.predict(predictor, image)
        assert (sample.pred_sem_seg.data[0].numpy() == mask).mean() > 0.7


def test_the_same_weights_slide(config, trained, tmp_path):
    slide = {"mode": "slide", "crop_size": (24, 32), "stride": (12, 16)}
    overrides = {"device": "cpu", "model.test_cfg": slide}
    tested = segfast.test(config, trained.checkpoint, work_dir=tmp_path, overrides=overrides)
    assert tested["mIoU"] > 60
    assert tested["mIoU"] != trained.metrics["mIoU"]
