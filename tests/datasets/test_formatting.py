"""PackSegInputs: shapes, dtypes, metainfo, and no copy of the image."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from segfast.datasets import PackSegInputs
from segfast.errors import ConfigError


@pytest.fixture
def results(mask):
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return {"img": image, "gt_seg_map": mask, "img_path": "a.png", "ori_shape": (6, 8), "rng": 0}


def test_image_is_a_view_and_labels_keep_their_dtype(results):
    packed = PackSegInputs()(results)
    assert packed["inputs"].shape == (3, 6, 8)
    assert packed["inputs"].data_ptr() == results["img"].ctypes.data
    sample = packed["data_samples"]
    assert sample.gt_sem_seg.data.shape == (1, 6, 8)
    assert sample.gt_sem_seg.data.dtype == torch.uint8
    assert sample.metainfo == {"img_path": "a.png", "ori_shape": (6, 8)}
    assert not hasattr(sample, "rng")


def test_label_dtype(results):
    packed = PackSegInputs(label_dtype="int64")(results)
    assert packed["data_samples"].gt_sem_seg.data.dtype == torch.int64
    with pytest.raises(ConfigError, match="label_dtype: expected uint8"):
        PackSegInputs(label_dtype="float32")


def test_grey_reversed_and_read_only_images(results):
    grey = PackSegInputs()({"img": results["img"][..., 0]})["inputs"]
    assert grey.shape == (1, 6, 8)
    reverse = results["img"][:, ::-1]
    packed = PackSegInputs()({"img": reverse})["inputs"]
    np.testing.assert_array_equal(packed.permute(1, 2, 0), reverse)
    frozen = results["img"].copy()
    frozen.flags.writeable = False
    PackSegInputs()({"img": frozen})["inputs"].zero_()
    assert frozen.any()


def test_meta_keys_and_other_maps(results, mask):
    results.update(gt_edge_map=mask, gt_depth_map=mask.astype(np.float32), flip=False)
    sample = PackSegInputs(meta_keys=("flip", "missing"))(results)["data_samples"]
    assert sample.metainfo == {"flip": False}
    assert sample.gt_edge_map.data.dtype == torch.int64
    assert sample.gt_depth_map.data.dtype == torch.float32
    assert repr(PackSegInputs(meta_keys=("a",))) == "PackSegInputs(meta_keys=('a',))"


def test_without_image_and_with_a_three_dimensional_map(mask):
    with pytest.warns(UserWarning, match="kept as it is"):
        packed = PackSegInputs()({"gt_seg_map": np.stack([mask, mask])})
    assert list(packed) == ["data_samples"]
    assert packed["data_samples"].gt_sem_seg.data.shape == (2, 6, 8)
