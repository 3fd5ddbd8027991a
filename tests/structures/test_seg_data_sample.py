"""SegDataSample: three typed fields, any others free."""

# SPDX-License-Identifier: Apache-2.0
import pickle

import pytest
import torch

from segfast.structures import PixelData, SegDataSample

FIELDS = ["gt_sem_seg", "pred_sem_seg", "seg_logits"]


def pixels(value=0):
    return PixelData(data=torch.full((1, 4, 5), value))


@pytest.mark.parametrize("field", FIELDS)
def test_fields_are_pixel_data_and_deletable(field):
    sample = SegDataSample()
    with pytest.raises(AssertionError, match="PixelData"):
        setattr(sample, field, torch.zeros(1, 4, 5))
    assert sample.keys() == []
    value = pixels()
    setattr(sample, field, value)
    assert getattr(sample, field) is value
    assert sample.keys() == [field]
    assert {field, f"_{field}"} <= sample._data_fields
    delattr(sample, field)
    assert field not in sample
    assert not hasattr(sample, field)


def test_pop_and_constructor_go_through_the_property():
    value = pixels()
    sample = SegDataSample(metainfo={"img_path": "a.png"}, gt_sem_seg=value)
    assert sample.pop("gt_sem_seg") is value
    assert sample.all_keys() == ["img_path"]


def test_other_fields_are_free():
    sample = SegDataSample(gt_edge_map=pixels(1), note="text")
    assert sample.keys() == ["gt_edge_map", "note"]


def test_to_lets_the_copy_change_its_labels():
    sample = SegDataSample(gt_sem_seg=pixels())
    moved = sample.to("cpu")
    del moved.gt_sem_seg.data
    moved.gt_sem_seg.data = torch.zeros(1, 8, 8)
    assert sample.gt_sem_seg.shape == (4, 5)


def test_pickle():
    sample = pickle.loads(pickle.dumps(SegDataSample(gt_sem_seg=pixels(3))))
    assert sample.gt_sem_seg.data.unique().tolist() == [3]
    assert sample.keys() == ["gt_sem_seg"]
