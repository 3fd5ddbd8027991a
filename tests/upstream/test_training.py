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
CONFIG = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
crop_size = (48, 64)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size=crop_size)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    pretrained=None,
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        base_channels=8,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        contract_dilation=True),
    decode_head=dict(
        type='FCNHead',
        in_channels=64,
        in_index=3,
        channels=16,
        num_convs=2,
        concat_input=True,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=32,
        in_index=2,
        channels=8,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))

dataset_type = 'BaseSegDataset'
data_root = 'ROOT'
metainfo = dict(classes=NAMES)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(80, 60), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True, seed=7),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        img_suffix='.png',
        metainfo=metainfo,
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        img_suffix='.png',
        metainfo=metainfo,
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        pipeline=test_pipeline))
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])

default_scope = 'mmseg'
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
log_processor = dict(by_epoch=False)
log_level = 'ERROR'
load_from = None
resume = False

# schedule_20k
optimizer = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0005)
optim_wrapper = dict(type='OptimWrapper', optimizer=optimizer, clip_grad=None)
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=20000, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=20000, val_interval=2000)
val_cfg = dict(type='ValLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2000),
    sampler_seed=dict(type='DistSamplerSeedHook'))
randomness = dict(seed=0)
"""
SWAPPED = {
    "type='SegDataPreProcessor'": "type='SegfastSegDataPreProcessor'",
    "type='EncoderDecoder'": "type='SegfastEncoderDecoder'",
    "type='FCNHead'": "type='SegfastFCNHead'",
    "type='CrossEntropyLoss'": "type='SegfastCrossEntropyLoss'",
    "type='IoUMetric'": "type='SegfastIoUMetric'",
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The config on a folder of generated street scenes: bands of classes, some pixels void."""
    root = tmp_path_factory.mktemp("camvid")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    colours = rng.integers(0, 255, (11, 3))
    for i in range(8):
        edges = np.sort(rng.choice(np.arange(4, SIZE[1] - 4), 10, replace=False))
        columns = np.searchsorted(edges, np.arange(SIZE[1]), side="right")
        labels = np.tile(columns, (SIZE[0], 1))
        labels[rng.integers(10, 50) :, :] = 3
        image = colours[labels] + rng.integers(-20, 20, (*SIZE, 3))
        labels[rng.random(SIZE) < 0.05] = 255
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(labels.astype(np.uint8)).save(root / "masks" / f"{i}.png")
    return CONFIG.replace("ROOT", str(root)).replace("NAMES", repr(CLASSES))


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
            # a pixel may fall to the other of two classes that rounding cannot tell apart
            rounding = (
                {"abs": 0.1} if name.endswith("acc_seg") else {"rel": 1e-5 if i < 10 else 2e-3}
            )
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
