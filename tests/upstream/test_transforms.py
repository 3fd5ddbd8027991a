"""Crop, flip, pad and pack beside mmcv's and mmseg's own, where nothing is drawn at random."""

# SPDX-License-Identifier: Apache-2.0
import copy

import numpy as np
import pytest

pytest.importorskip("mmseg")

import mmseg.datasets.transforms  # noqa: F401  (registers)
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS as THEIR_TRANSFORMS

from segfast.registry import TRANSFORMS


@pytest.fixture(autouse=True)
def _scope(_own_scope):
    init_default_scope("mmseg")


def sample(grey=False):
    rng = np.random.default_rng(0)
    shape = (37, 53) if grey else (37, 53, 3)
    return {
        "img": rng.integers(0, 255, shape, dtype=np.uint8),
        "gt_seg_map": rng.integers(0, 4, (37, 53), dtype=np.uint8),
        "seg_fields": ["gt_seg_map"],
        "img_shape": (37, 53),
        "ori_shape": (37, 53),
        "img_path": "a.png",
    }


CASES = [
    dict(type="RandomCrop", crop_size=(100, 100)),
    dict(type="RandomCrop", crop_size=(37, 53), cat_max_ratio=0.1),
    dict(type="RandomFlip", prob=1.0),
    dict(type="RandomFlip", prob=0.0),
    dict(type="RandomFlip", prob=1.0, direction="vertical"),
    dict(type="RandomFlip", prob=1.0, direction="diagonal"),
    dict(type="RandomFlip", prob=1.0, swap_seg_labels=[(1, 2)]),
    dict(type="RandomFlip", prob=1.0, swap_seg_labels=[(0, 1), (1, 2)]),
    dict(type="Pad", size=(64, 48)),
    dict(type="Pad", size=(20, 20)),
    dict(type="Pad", size_divisor=32),
    dict(type="Pad", size_divisor=32, pad_to_square=True),
    dict(type="Pad", pad_to_square=True),
    dict(type="Pad", size=(64, 48), pad_val=7),
    dict(type="Pad", size=(64, 48), pad_val=dict(img=(1, 2, 3), seg=254)),
    dict(type="Pad", size=(64, 48), pad_val=dict(img=9)),
    dict(type="Pad", size=(64, 48), padding_mode="edge"),
    dict(type="Pad", size=(64, 48), padding_mode="reflect"),
    dict(type="RandomResize", scale=(53, 37), ratio_range=(1.0, 1.0), keep_ratio=True),
    dict(type="LoadImageFromNDArray"),
    dict(type="LoadImageFromNDArray", to_float32=True),
]


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("cfg", CASES, ids=str)
def test_the_same_results(cfg, grey):
    if grey and isinstance(cfg.get("pad_val"), dict):
        pytest.skip("three values for one channel")
    theirs, ours = (
        registry.build(copy.deepcopy(cfg))(sample(grey))
        for registry in (THEIR_TRANSFORMS, TRANSFORMS)
    )
    if "pad_shape" in theirs:  # (H, W, C) there, see docs/architecture.md
        theirs["pad_shape"] = theirs["pad_shape"][:2]
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(ours[key], value)
            assert ours[key].dtype == value.dtype
        else:
            assert ours[key] == value, key


def test_packed_samples():
    theirs, ours = (
        registry.build(cfg)(sample())
        for registry, cfg in (
            (THEIR_TRANSFORMS, dict(type="PackSegInputs")),
            (TRANSFORMS, dict(type="PackSegInputs", label_dtype="int64")),
        )
    )
    assert set(ours) == set(theirs)
    assert (ours["inputs"] == theirs["inputs"]).all()
    assert ours["inputs"].dtype == theirs["inputs"].dtype
    one, other = theirs["data_samples"], ours["data_samples"]
    assert other.metainfo == one.metainfo
    assert (other.gt_sem_seg.data == one.gt_sem_seg.data).all()
    assert other.gt_sem_seg.data.dtype == one.gt_sem_seg.data.dtype
