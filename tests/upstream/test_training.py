"""One mmseg config, 20 iterations: stock mmseg, mmseg with our parts, segfast. The losses agree.

mmseg trains it as it is, augmentation included: both runs draw the same numbers. segfast draws others, so the second
comparison leaves augmentation, shuffling and dropout out, starts from mmseg's weights, and reads the very same file.
"""

# SPDX-License-Identifier: Apache-2.0
import copy
import warnings
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from stock_config import stock_config

from segfast.config import load_config
from segfast.datasets import InfiniteSampler
from segfast.runner import Hook, Runner

pytest.importorskip("mmseg.models", exc_type=ImportError)
from mmengine.config import Config
from mmengine.hooks import Hook as TheirHook
from mmengine.runner import Runner as TheirRunner

import segfast.integrations.mmseg  # noqa: F401  (registers the Segfast types)

ITERATIONS = 20
CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")  # fmt: skip
SIZE = (60, 80)
SAME_START = """
log_level = 'ERROR'
randomness = dict(seed=0)
train_dataloader['sampler']['seed'] = 7
default_hooks.pop('visualization')
del visualizer, vis_backends, tta_model, test_dataloader, test_evaluator, test_cfg
"""
SWAPPED = {
    "type='SegDataPreProcessor'": "type='SegfastSegDataPreProcessor'",
    "type='EncoderDecoder'": "type='SegfastEncoderDecoder'",
    "type='FCNHead'": "type='SegfastFCNHead'",
    "type='CrossEntropyLoss'": "type='SegfastCrossEntropyLoss'",
    "type='IoUMetric'": "type='SegfastIoUMetric'",
}


@pytest.fixture(
    scope="module", params=["generated", pytest.param("camvid", marks=pytest.mark.shared_data)]
)
def text(request, tmp_path_factory):
    """The config on a few small street scenes: bands of classes, or CamVid."""
    root = tmp_path_factory.mktemp(request.param)
    pairs = (
        camvid(request.getfixturevalue("shared_data")) if request.param == "camvid" else scenes()
    )
    for i, (image, mask) in enumerate(pairs):
        for part in ("train", "val"):
            for kind, picture in (("images", image), ("masks", mask)):
                (root / kind / part).mkdir(parents=True, exist_ok=True)
                picture.save(root / kind / part / f"{i}.png")
    return stock_config(root, CLASSES, (48, 64), (80, 60), (80, 60)) + SAME_START


def scenes():
    """Generated: (image, mask) pairs, some pixels void."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (11, 3))
    for _ in range(8):
        edges = np.sort(rng.choice(np.arange(4, SIZE[1] - 4), 10, replace=False))
        columns = np.searchsorted(edges, np.arange(SIZE[1]), side="right")
        labels = np.tile(columns, (SIZE[0], 1))
        labels[rng.integers(10, 50) :, :] = 3
        image = colours[labels] + rng.integers(-20, 20, (*SIZE, 3))
        labels[rng.random(SIZE) < 0.05] = 255
        yield (
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)),
            Image.fromarray(labels.astype(np.uint8)),
        )


def camvid(shared_data):
    """Sixteen frames of CamVid at a sixth of their size; its void, 11, becomes mmseg's 255."""
    for mask in sorted((shared_data / "camvid/masks/train").iterdir())[::23]:
        image = Image.open(shared_data / f"camvid/images/train/{mask.stem}.jpg")
        labels = np.array(Image.open(mask).resize(SIZE[::-1], Image.Resampling.NEAREST))
        labels[labels == 11] = 255
        yield image.resize(SIZE[::-1], Image.Resampling.BILINEAR), Image.fromarray(labels)


def recorder(base):
    """A hook that keeps the first weights and every iteration's losses."""

    class Recorder(base):
        def __init__(self):
            self.losses = []

        def before_train(self, runner):
            self.weights = copy.deepcopy(runner.model.state_dict())

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.losses.append({name: float(value) for name, value in outputs.items()})

    return Recorder()


def train_in_mmseg(text, work_dir):
    """(losses, metrics, first weights) of mmseg's run."""
    path = work_dir.parent / f"{work_dir.name}.py"
    path.write_text(text)
    cfg = Config.fromfile(path)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = work_dir.name
    cfg.train_cfg.update(max_iters=ITERATIONS, val_interval=ITERATIONS)
    hook = recorder(TheirHook)
    with warnings.catch_warnings(action="ignore"):
        runner = TheirRunner.from_cfg(cfg)
        runner.register_hook(hook)
        runner.train()
        metrics = runner.val()
    return hook.losses, metrics, hook.weights


def train_in_segfast(text, work_dir, weights):
    path = work_dir.parent / f"{work_dir.name}.py"
    path.write_text(text)
    checkpoint = work_dir.parent / "first.pth"
    torch.save({"state_dict": weights}, checkpoint)
    short = {
        "train_cfg.max_iters": ITERATIONS,
        "train_cfg.val_interval": ITERATIONS,
        "device": "cpu",
        "load_from": str(checkpoint),
        "work_dir": str(work_dir),
    }
    hook = recorder(Hook)
    runner = Runner.from_cfg({**load_config(path, short), "custom_hooks": [hook]})
    runner.train()
    return hook.losses, runner.metrics, hook.weights


def assert_same_losses(actual, expected):
    """Equal to rounding, which training amplifies: one ulp in an image's mean moves stock mmseg's 17th loss by 3e-4."""
    assert len(actual) == len(expected) == ITERATIONS
    for i, (mine, other) in enumerate(zip(actual, expected, strict=True)):
        assert set(mine) == set(other), i
        for name, value in other.items():
            # Pixels fall to the other of two classes that rounding cannot tell apart: on real frames, which have
            # large even surfaces, many at once.
            accuracy = name.endswith("acc_seg")
            if i < 10:
                rounding = {"abs": 0.1} if accuracy else {"rel": 1e-5}
            else:
                rounding = {"abs": 2.0} if accuracy else {"rel": 2e-3}
            assert mine[name] == pytest.approx(value, **rounding), (i, name)


def test_mmseg_with_our_parts_takes_the_steps_of_mmseg(text, tmp_path):
    swapped = text
    for stock, ours in SWAPPED.items():
        assert stock in text
        swapped = swapped.replace(stock, ours)
    losses, metrics, first = train_in_mmseg(text, tmp_path / "stock")
    our_losses, our_metrics, our_first = train_in_mmseg(swapped, tmp_path / "swapped")
    assert all(torch.equal(our_first[name], first[name]) for name in first)
    assert len({round(x["loss"], 3) for x in losses}) > 10  # the steps are steps
    assert_same_losses(our_losses, losses)
    assert our_metrics == pytest.approx(metrics, abs=0.1)


def test_segfast_takes_the_steps_of_mmseg(text, tmp_path):
    plain = text.replace("dropout_ratio=0.1", "dropout_ratio=0.0").replace(
        "shuffle=True", "shuffle=False"
    )
    for name in ("RandomResize", "RandomCrop", "RandomFlip", "PhotoMetricDistortion"):
        lines = [line for line in plain.splitlines() if f"type='{name}'" not in line]
        assert len(lines) == len(plain.splitlines()) - 1
        plain = "\n".join(lines)
    plain = plain.replace("crop_size = (48, 64)", "crop_size = (64, 96)")
    losses, metrics, first = train_in_mmseg(plain, tmp_path / "stock_plain")
    our_losses, our_metrics, our_first = train_in_segfast(plain, tmp_path / "segfast", first)
    assert all(torch.equal(our_first[name], first[name]) for name in first)
    assert_same_losses(our_losses, losses)
    assert our_metrics == pytest.approx(metrics, abs=0.1)


def test_passes_after_the_first_are_shuffled_otherwise():
    """Ours depend on (seed, pass) only, so that a resumed run jumps to its place; upstream replays one stream."""
    from mmengine.dataset import InfiniteSampler as Theirs

    ours, theirs = (list(islice(kind(range(8), seed=7), 16)) for kind in (InfiniteSampler, Theirs))
    assert ours[:8] == theirs[:8]
    assert ours[8:] != theirs[8:]
    assert sorted(ours[8:]) == sorted(theirs[8:])
