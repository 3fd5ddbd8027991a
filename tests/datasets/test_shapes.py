"""ShapesDataset: the same images everywhere, every class in them, colour no clue."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from segfast.datasets import BaseSegDataset, SampleKey, ShapesDataset, write_shapes
from segfast.datasets.shapes import CLASSES, draw_shapes
from segfast.errors import ConfigError


def test_interface():
    data = ShapesDataset(num_images=3, size=64)
    assert len(data) == 3
    assert data.metainfo["classes"] == CLASSES
    assert len(data.metainfo["palette"]) == len(CLASSES)
    sample = data[1]
    assert sample["inputs"].shape == (3, 64, 64)
    assert sample["inputs"].dtype == torch.uint8
    labels = sample["data_samples"].gt_sem_seg.data
    assert labels.shape == (1, 64, 64)
    assert labels.dtype == torch.uint8
    assert sample["data_samples"].img_shape == (64, 64)


def test_images_depend_on_seed_and_index_only():
    image, labels = draw_shapes(3, 7)
    again = ShapesDataset(num_images=20, seed=3, pipeline=[])[SampleKey(7, epoch=4, seed=9)]
    np.testing.assert_array_equal(again["img"], image)
    np.testing.assert_array_equal(again["gt_seg_map"], labels)
    assert not np.array_equal(draw_shapes(3, 8)[0], image)
    assert not np.array_equal(draw_shapes(4, 7)[0], image)


def test_every_class_is_common():
    labels = np.stack([draw_shapes(0, index)[1] for index in range(40)])
    shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    assert len(shares) == len(CLASSES)
    assert shares.min() > 0.02
    assert 0.5 < shares[0] < 0.9


def test_mean_colour_does_not_tell_the_class():
    colours = {label: [] for label in range(len(CLASSES))}
    for index in range(60):
        image, labels = draw_shapes(1, index)
        for label in np.unique(labels):
            colours[label].append(image[labels == label].mean(axis=0))
    means = np.array([np.mean(colours[label], axis=0) for label in colours])
    assert np.ptp(means, axis=0).max() < 45
    assert all(np.std(colours[label], axis=0).min() > 40 for label in list(colours)[1:])


def test_written_folder_reads_back_the_same(tmp_path):
    write_shapes(tmp_path, num_images=4, size=48, seed=2)
    written = BaseSegDataset(data_root=tmp_path, metainfo={"classes": CLASSES})
    generated = ShapesDataset(num_images=4, size=48, seed=2)
    for index in range(4):
        ours, theirs = generated[index], written[index]
        assert torch.equal(ours["inputs"], theirs["inputs"])
        first, second = (s["data_samples"].gt_sem_seg.data for s in (ours, theirs))
        assert torch.equal(first, second)


@pytest.mark.parametrize(("name", "value"), [("num_images", 0), ("size", 8), ("size", "96")])
def test_wrong_arguments(name, value):
    with pytest.raises(ConfigError, match=f"{name}: expected a whole number of at least"):
        ShapesDataset(**{name: value})
