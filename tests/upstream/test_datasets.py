"""BaseSegDataset, named data sets, TestTimeAug and loaders beside mmseg's: the same samples from the same files."""

# SPDX-License-Identifier: Apache-2.0
import copy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmseg")

import mmseg.datasets as theirs
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.dataset import pseudo_collate as their_collate
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS as THEIR_TRANSFORMS

import segfast.datasets as ours
from segfast.registry import TRANSFORMS

META = dict(classes=("p", "q", "r", "s"), palette=[[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 1]])
LOAD = [dict(type="LoadImageFromFile", backend_args=None), dict(type="LoadAnnotations")]

their_wrappers = (ConcatDataset, RepeatDataset)
our_wrappers = (ours.ConcatDataset, ours.RepeatDataset)


class Theirs(theirs.BaseSegDataset):
    METAINFO = META


class Ours(ours.BaseSegDataset):
    METAINFO = META


@pytest.fixture(autouse=True)
def _scope(_own_scope):
    init_default_scope("mmseg")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for stem in ("a", "b", "x/c", "d.e"):
        image, mask = folder / f"img/{stem}_leftImg8bit.png", folder / f"ann/{stem}_gt.png"
        for path in (image, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (21, 31, 3), dtype=np.uint8)).save(image)
        labels = rng.integers(0, 4, (21, 31), dtype=np.uint8)
        labels[:3] = 255
        Image.fromarray(labels).save(mask)
    (folder / "list.txt").write_text("b\nx/c\na\n")
    (folder / "classes.txt").write_text("p\nq\nr\ns\n")
    return folder


def build(kind, root, **changes):
    settings = dict(
        data_root=str(root),
        data_prefix=dict(img_path="img", seg_map_path="ann"),
        img_suffix="_leftImg8bit.png",
        seg_map_suffix="_gt.png",
        pipeline=copy.deepcopy(LOAD),
    )
    return kind(**{**settings, **changes})


CASES = [
    dict(),
    dict(ann_file="list.txt"),
    dict(metainfo=dict(classes=("r", "p"))),
    dict(metainfo=dict(classes=["s", "r", "q", "p"])),
    dict(metainfo=dict(classes="classes.txt")),
    dict(reduce_zero_label=True),
    dict(indices=2),
    dict(indices=-2),
    dict(indices=[2, 0]),
    dict(test_mode=True),
    dict(filter_cfg=dict(a=1), serialize_data=False, lazy_init=True, max_refetch=3),
    dict(data_prefix=dict(img_path="img", seg_map_path="ann", img_path2="x")),
    dict(backend_args=dict(backend="local")),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_samples(case, root, monkeypatch):
    monkeypatch.chdir(root)
    left, right = build(Theirs, root, **case), build(Ours, root, **case)
    assert len(left) == len(right)
    assert left.metainfo == right.metainfo
    for one, other in ((left[index], right[index]) for index in range(len(left))):
        assert {key: other[key] for key in one if key not in ("img", "gt_seg_map")} == {
            key: value for key, value in one.items() if key not in ("img", "gt_seg_map")
        }
        for key in ("img", "gt_seg_map"):
            np.testing.assert_array_equal(other[key], one[key])
            assert other[key].dtype == one[key].dtype
    for key in right.data_prefix:
        assert right.data_prefix[key] == left.data_prefix[key]


@pytest.mark.parametrize(
    ("case", "error"),
    [
        (dict(metainfo=dict(classes=("p", "zz"))), ValueError),
        (dict(metainfo=dict(palette=[[1, 2, 3]])), ValueError),
    ],
)
def test_the_same_refusals(case, error, root):
    for kind in (Theirs, Ours):
        with pytest.raises(error):
            build(kind, root, **case)


def test_a_test_without_classes(root):
    for kind in (theirs.BaseSegDataset, ours.BaseSegDataset):
        with pytest.raises(AssertionError, match="`classes` should be specified when testing"):
            build(kind, root, test_mode=True, lazy_init=True)


@pytest.mark.parametrize("name", ["CityscapesDataset", "ADE20KDataset", "PascalVOCDataset"])
def test_tables_are_the_published_ones(name, root):
    left, right = getattr(theirs, name), getattr(ours, name)
    assert right.METAINFO == left.METAINFO
    (root / "split.txt").write_text("")
    prefix = dict(img_path="img", seg_map_path="ann")
    settings = dict(data_root=str(root), data_prefix=prefix, lazy_init=True)
    if name == "PascalVOCDataset":
        settings["ann_file"] = "split.txt"
    one, other = left(**settings), right(**settings)
    for key in ("img_suffix", "seg_map_suffix", "reduce_zero_label", "ignore_index", "metainfo"):
        assert getattr(other, key) == getattr(one, key), key


REPRS = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadImageFromFile", to_float32=True, imdecode_backend="pillow", ignore_empty=True),
    dict(type="LoadAnnotations"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="PackSegInputs"),
]


@pytest.mark.parametrize("cfg", REPRS, ids=str)
def test_the_same_repr(cfg):
    assert repr(TRANSFORMS.build(cfg)) == repr(THEIR_TRANSFORMS.build(cfg))


def test_jpeg_pixels_are_the_same(tmp_path):
    y, x = np.mgrid[:64, :80]
    colours = np.stack([x * 3, y * 4, (x + y) % 256], -1).astype(np.uint8)
    path = str(tmp_path / "a.jpg")
    Image.fromarray(colours).save(path, quality=85)
    one, other = (
        registry.build(dict(type="LoadImageFromFile"))(dict(img_path=path))["img"]
        for registry in (THEIR_TRANSFORMS, TRANSFORMS)
    )
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 1  # two builds of libjpeg


def test_time_augmentation(root):
    """mmseg's tta_pipeline: the same versions, in the same order, in the same nesting."""
    versions = [
        [dict(type="Resize", scale_factor=r, keep_ratio=True) for r in (0.5, 1.0, 1.75)],
        [
            dict(type="RandomFlip", prob=0.0, direction="horizontal"),
            dict(type="RandomFlip", prob=1.0, direction="horizontal"),
        ],
        [dict(type="LoadAnnotations")],
        [dict(type="PackSegInputs")],
    ]
    pipeline = [LOAD[0], dict(type="TestTimeAug", transforms=versions)]
    batches = []
    for kind, collate in ((Theirs, their_collate), (Ours, ours.pseudo_collate)):
        data = build(kind, root, pipeline=copy.deepcopy(pipeline), test_mode=True)
        batches.append(collate([data[0], data[1]]))
    one, other = batches
    assert one.keys() == other.keys()
    for key in ("inputs", "data_samples"):
        assert [len(version) for version in other[key]] == [len(version) for version in one[key]]
    for version, own in zip(one["inputs"], other["inputs"], strict=True):
        for image, own_image in zip(version, own, strict=True):
            assert own_image.shape == image.shape
            assert (own_image.int() - image.int()).abs().max() <= 1
    for version, own in zip(one["data_samples"], other["data_samples"], strict=True):
        for sample, own_sample in zip(version, own, strict=True):
            assert Path(own_sample.img_path) == Path(sample.img_path)
            for key in ("flip", "flip_direction", "img_shape", "ori_shape", "reduce_zero_label"):
                assert own_sample.metainfo[key] == sample.metainfo[key], key
            labels, own_labels = sample.gt_sem_seg.data, own_sample.gt_sem_seg.data
            assert (own_labels.long() == labels).all()


@pytest.mark.parametrize("size", [(40, 60), (64, 32), (97, 131)])
@pytest.mark.parametrize(
    "cfg", [dict(), dict(size_divisor=(16, 24)), dict(interpolation="nearest")]
)
def test_resize_to_multiple(cfg, size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    labels = rng.integers(0, 19, size, dtype=np.uint8)
    one, other = (
        registry.build(dict(type="ResizeToMultiple", **cfg))(
            dict(img=image.copy(), gt_seg_map=labels.copy(), seg_fields=["gt_seg_map"])
        )
        for registry in (THEIR_TRANSFORMS, TRANSFORMS)
    )
    np.testing.assert_array_equal(other["gt_seg_map"], one["gt_seg_map"])
    assert np.abs(one["img"].astype(int) - other["img"].astype(int)).max() <= 1
    assert other["img_shape"] == one["img_shape"]
    assert other["pad_shape"] == one["pad_shape"]


def test_random_choice_resize():
    image = np.zeros((40, 60, 3), np.uint8)
    cfg = dict(type="RandomChoiceResize", scales=[(30, 20), (64, 90)], keep_ratio=True)
    shapes = []
    for registry in (THEIR_TRANSFORMS, TRANSFORMS):
        step = registry.build(copy.deepcopy(cfg))
        drawn = [step(dict(img=image.copy())) for _ in range(40)]
        shapes.append({(r["scale_idx"], r["img_shape"], r["img"].shape) for r in drawn})
    assert shapes[0] == shapes[1]


def test_wrapped_data_sets(root):
    both = [
        kinds[0]([build(kind, root), build(kind, root, indices=2)])
        for kind, kinds in ((Theirs, their_wrappers), (Ours, our_wrappers))
    ]
    often = [
        kinds[1](build(kind, root, indices=3), times=2)
        for kind, kinds in ((Theirs, their_wrappers), (Ours, our_wrappers))
    ]
    for left, right in (both, often):
        assert len(left) == len(right) == 6
        assert left.metainfo == right.metainfo
        for index in range(-6, 6):
            info, own = left.get_data_info(index), right.get_data_info(index)
            assert (own["img_path"], own["sample_idx"]) == (info["img_path"], info["sample_idx"])
            np.testing.assert_array_equal(right[index]["gt_seg_map"], left[index]["gt_seg_map"])
