"""DataSample: fields from a pipeline's results, stacks of samples and their inverse."""

# SPDX-License-Identifier: Apache-2.0

import pickle

import numpy as np
import pytest
import torch

from segfast.structures import DataSample, LabelData
from segfast.structures.data_sample import images_to_tensor, is_splitable_var


def sample(label, **data):
    made = DataSample(metainfo={"gt_channel_order": "RGB", "img_shape": (4, 5)}, mode=f"m{label}")
    made.set_gt_label(label)
    made.set_tensor_data({"img": torch.full((3, 4, 5), float(label)), "prompt": f"p{label}"})
    made.set_data(data)
    return made


def test_what_can_be_split():
    for value in (DataSample(), torch.zeros(2), np.zeros(2), [1], (1,)):
        assert is_splitable_var(value)
    for value in ("text", {"a": 1}, 3, None):
        assert not is_splitable_var(value)


def test_results_find_their_fields():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    results = {
        "gt": image, "gt_label": 7, "fg": image[..., 0], "alpha": [image, image], "ref": [image], "prompt": "a cat",
        "mask": torch.ones(1, 2, 4), "img_path": "a.png", "gt_channel_order": "RGB", "unknown": image,
    }  # fmt: skip
    made = DataSample()
    made.set_predefined_data(results)
    assert made.metainfo == {"img_path": "a.png", "gt_channel_order": "RGB"}
    assert set(made.keys()) == {
        "gt_img",
        "gt_label",
        "gt_fg",
        "gt_alpha",
        "ref_img",
        "prompt",
        "mask",
    }
    np.testing.assert_array_equal(made.gt_img, image.transpose(2, 0, 1))
    assert made.gt_img.dtype == torch.uint8
    assert made.gt_fg.shape == (1, 2, 4)
    assert made.gt_alpha.shape == (2, 3, 2, 4)
    assert made.ref_img.shape == (3, 2, 4)
    assert made.gt_label.label.tolist() == [7]
    assert made.prompt == "a cat"


def test_one_image_is_not_copied_and_read_only_ones_are():
    image = np.zeros((2, 4, 3), dtype=np.uint8)
    assert images_to_tensor(image).data_ptr() == image.ctypes.data
    image.flags.writeable = False
    assert images_to_tensor(image).data_ptr() != image.ctypes.data
    for value in (3, "text", np.zeros(3), [1, 2], []):
        assert images_to_tensor(value) is value


def test_tensor_data_is_checked():
    with pytest.raises(AssertionError, match="dict"):
        DataSample().set_tensor_data([1])
    with pytest.raises(AssertionError, match="img should be"):
        DataSample().set_tensor_data({"img": "text"})
    with pytest.raises(AssertionError, match="prompt should be"):
        DataSample().set_tensor_data({"prompt": 3})


def test_label_is_replaced_checked_and_deletable():
    made = DataSample(metainfo={"num_classes": 10})
    assert "gt_label" not in made
    assert made.set_gt_label(5) is made
    label = made.gt_label
    made.set_gt_label([1, 2])
    assert made.gt_label is label
    assert label.label.tolist() == [1, 2]
    assert made.keys() == ["gt_label"]
    with pytest.raises(ValueError, match="should not exceed"):
        made.set_gt_label(15)
    with pytest.raises(AssertionError, match="LabelData"):
        made.gt_label = torch.tensor([1])
    del made.gt_label
    assert "gt_label" not in made
    assert made.keys() == []


def test_stack():
    stacked = DataSample.stack([sample(1), sample(2)])
    assert stacked.img.shape == (2, 3, 4, 5)
    assert stacked.gt_label.label.tolist() == [[1], [2]]
    assert stacked.mode == ["m1", "m2"]
    assert stacked.prompt == ["p1", "p2"]
    assert stacked.metainfo == {"gt_channel_order": ["RGB", "RGB"], "img_shape": [(4, 5), (4, 5)]}
    assert len(stacked) == 2
    assert len(DataSample.stack([sample(1)])) == 1


def test_stack_needs_equal_fields():
    with pytest.raises(AssertionError, match="same fields"):
        DataSample.stack([sample(1), sample(2, extra=1)])
    with pytest.raises(AssertionError, match="same fields"):
        DataSample.stack([DataSample(), DataSample(metainfo={"a": 1})])
    with pytest.raises(AssertionError, match="expected extra of one type"):
        DataSample.stack([sample(1, extra=1), sample(2, extra="a")])


def test_split_is_the_inverse():
    for count in (1, 3):
        samples = [sample(i) for i in range(count)]
        for before, after in zip(samples, DataSample.stack(samples).split(), strict=True):
            assert after.all_keys() == before.all_keys()
            assert after.metainfo == before.metainfo
            assert torch.equal(after.img, before.img)
            assert torch.equal(after.gt_label.label, before.gt_label.label)
            assert (after.mode, after.prompt) == (before.mode, before.prompt)


def test_split_of_what_is_no_sequence():
    stacked = DataSample.stack([sample(1), sample(2)])
    stacked.sample_kwargs = {"a": [1]}
    stacked.output = DataSample(pred_img=torch.zeros(2, 3, 4, 4), note="ema")
    with pytest.raises(TypeError, match="non-sequential"):
        stacked.split()
    first, second = stacked.split(allow_nonseq_value=True)
    assert first.output.pred_img.shape == (3, 4, 4)
    assert first.output.note == "ema"
    first.sample_kwargs["a"].append(2)
    assert second.sample_kwargs == {"a": [1]}


def test_length():
    assert len(DataSample()) == 1
    assert len(DataSample(kwargs={"a": 1}, text="abc")) == 1
    assert len(DataSample(img=torch.zeros(3, 3), metainfo={"img_shape": [3, 3]})) == 1
    assert len(DataSample(img=torch.zeros(4, 3), inner=DataSample(x=torch.zeros(4)))) == 4
    assert len(DataSample(gt_label=LabelData(label=torch.zeros(5, 1)))) == 5


def test_conversions_and_pickle_keep_everything():
    made = sample(3, output=DataSample(pred_img=torch.zeros(1)))
    for copy in (made.cpu(), made.to("cpu"), pickle.loads(pickle.dumps(made))):
        assert copy.all_keys() == made.all_keys()
        assert copy.gt_label.label.tolist() == [3]
    assert made.to(torch.float64).output.pred_img.dtype == torch.float64
    assert isinstance(made.numpy().gt_label.label, np.ndarray)
    assert made.to_dict()["gt_label"] == {"label": torch.tensor([3])}
