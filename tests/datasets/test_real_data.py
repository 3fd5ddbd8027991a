"""The datasets on real folders: sizes, labels and loading through workers."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from segfast.datasets import BaseSegDataset, build_dataloader
from segfast.errors import DataError

pytestmark = pytest.mark.shared_data

CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"]
CAMVID += ["pedestrian", "bicyclist"]
TRAIN = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(480, 360), ratio_range=(0.75, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(256, 256), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]


def prefix(split):
    return {"img_path": f"images/{split}", "seg_map_path": f"masks/{split}"}


def horses(shared_data, split="train", **kwargs):
    return BaseSegDataset(
        data_root=shared_data / "horses",
        data_prefix=prefix(split),
        metainfo={"classes": ["ground", "horse"]},
        **kwargs,
    )


def camvid(shared_data, split="train", num_classes=11, **kwargs):
    return BaseSegDataset(
        data_root=shared_data / "camvid",
        data_prefix=prefix(split),
        metainfo={"classes": CAMVID[:num_classes]},
        **kwargs,
    )


def test_horses_need_a_label_map_and_say_so(shared_data):
    with pytest.raises(DataError, match=r"only the values 0 and 255.*label_map=\{0: 0, 255: 1\}"):
        horses(shared_data)


def test_horses(shared_data):
    data = horses(shared_data, label_map={0: 0, 255: 1})
    assert len(data) == 200
    assert len(horses(shared_data, "val", label_map={0: 0, 255: 1})) == 50
    shapes = set()
    for index in range(0, 200, 20):
        sample = data[index]
        labels = sample["data_samples"].gt_sem_seg.data
        assert labels.unique().tolist() == [0, 1]
        assert sample["inputs"].shape == (3, *labels.shape[-2:])
        shapes.add(tuple(labels.shape))
    assert len(shapes) > 5


def test_camvid(shared_data):
    data = camvid(shared_data, ignore_index=11)
    assert len(data) == 367
    assert len(camvid(shared_data, "val", ignore_index=11)) == 101
    seen = set()
    for index in range(0, 367, 40):
        labels = data[index]["data_samples"].gt_sem_seg.data
        assert labels.dtype == torch.uint8
        seen |= set(labels.unique().tolist())
    assert seen == set(range(12))


def test_camvid_void_mapped_to_255(shared_data):
    mapping = {**{k: k for k in range(11)}, 11: 255}
    data = camvid(shared_data, label_map=mapping)
    labels = np.concatenate(
        [data[k]["data_samples"].gt_sem_seg.data.unique().numpy() for k in range(5)]
    )
    assert 255 in labels
    assert 11 not in labels


def test_camvid_with_too_few_classes_names_the_file(shared_data):
    with pytest.raises(DataError, match=r"\.png: mask holds the label \d+, but there are 9"):
        camvid(shared_data, num_classes=9)


def test_camvid_training_batches_through_workers(shared_data):
    data = camvid(shared_data, ignore_index=11, pipeline=TRAIN)
    loaders = [
        build_dataloader(dict(dataset=data, batch_size=4, num_workers=n), seed=0) for n in (0, 2)
    ]
    for _, *both in zip(range(2), *loaders, strict=False):
        alone, workers = both
        assert all(image.shape == (3, 256, 256) for image in alone["inputs"])
        for first, second in zip(alone["inputs"], workers["inputs"], strict=True):
            assert torch.equal(first, second)
