"""PackInputs: which results become inputs, metainfo and fields."""

# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from segfast.datasets import PackInputs
from segfast.datasets.transforms import Compose
from segfast.models import DataPreprocessor
from segfast.structures import DataSample


def image(height, width):
    return np.random.default_rng(0).random((height, width, 3))


def test_predefined_and_named_results():
    widths = {
        "img_lq": 64, "ref": 62, "ref_lq": 61, "mask": 63, "gt_heatmap": 65, "merged": 60, "trimap": 66, "alpha": 67,
        "fg": 68, "bg": 69,
    }  # fmt: skip
    results = {name: image(64, width) for name, width in widths.items()}
    results |= {"gt": [image(64, 61)] * 2, "img_shape": (64, 64), "a": "b", "extra": image(48, 48)}
    packed = PackInputs(keys="img", meta_keys="a", data_keys="extra")(
        {**results, "img": image(9, 8)}
    )
    assert list(packed) == ["inputs", "data_samples"]
    assert packed["inputs"].shape == (3, 9, 8)
    assert packed["inputs"].dtype == torch.float64
    sample = packed["data_samples"]
    assert isinstance(sample, DataSample)
    assert sample.metainfo == {"img_shape": (64, 64), "a": "b"}
    fields = {
        "ref": "ref_img", "merged": "gt_merged", "alpha": "gt_alpha", "fg": "gt_fg", "bg": "gt_bg",
    }  # fmt: skip
    assert set(sample.keys()) == {"gt_img", "extra", *(fields.get(name, name) for name in widths)}
    for name, width in widths.items():
        assert getattr(sample, fields.get(name, name)).shape == (3, 64, width)
    np.testing.assert_array_equal(sample.gt_img[1], results["gt"][1].transpose(2, 0, 1))
    assert sample.gt_img.shape == (2, 3, 64, 61)


def test_one_input_stands_alone_and_is_not_copied():
    picture = np.zeros((4, 5, 3), dtype=np.uint8)
    inputs = PackInputs(keys=["img", "x"])({"img": picture, "x": None})["inputs"]
    assert inputs.data_ptr() == picture.ctypes.data
    both = PackInputs()({"img": picture, "merged": picture})["inputs"]
    assert list(both) == ["merged", "img"]
    assert PackInputs(keys=["noise"])({"img": picture})["inputs"] == {}
    assert PackInputs(keys=("num_batches", "img"))({"num_batches": 3})["inputs"] == 3


def test_a_named_result_is_not_predefined():
    sample = PackInputs(meta_keys=["gt"], data_keys=["img_path"])({"gt": "text"})["data_samples"]
    assert sample.metainfo == {"gt": "text"}
    with pytest.raises(AssertionError, match="img_path should be"):
        PackInputs(data_keys=["img_path"])({"img_path": "a.png"})


@pytest.mark.parametrize("argument", ["keys", "meta_keys", "data_keys"])
def test_none_is_refused(argument):
    with pytest.raises(AssertionError, match=f"^{argument} in PackInputs can not be None"):
        PackInputs(**{argument: None})


def test_repr_and_config():
    assert repr(PackInputs()) == "PackInputs"
    pipeline = Compose([{"type": "PackInputs", "keys": ["img"]}])
    packed = [pipeline({"img": np.full((4, 4, 3), 255, np.uint8), "gt": image(4, 4)})] * 2
    batch = {key: [one[key] for one in packed] for key in packed[0]}
    out = DataPreprocessor()(batch, training=True)
    assert out["inputs"].unique().tolist() == [1]
    assert out["data_samples"].gt_img.shape == (2, 3, 4, 4)
    assert out["data_samples"].gt_img.dtype == torch.float32
