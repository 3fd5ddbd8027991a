"""ImgDataPreprocessor and its stack_batch."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from segfast.models import ImgDataPreprocessor, stack_batch


def test_stack_batch_pads_every_dimension_but_the_first():
    out = stack_batch([torch.ones(3, 2, 5), torch.ones(3, 4, 1)], 3, pad_value=7)
    assert out.shape == (2, 3, 6, 6)
    assert out[0, 0, 1].tolist() == [1, 1, 1, 1, 1, 7]
    assert out[1, 2, 4].tolist() == [7] * 6
    assert stack_batch([torch.ones(2, 3), torch.ones(2, 4)]).shape == (2, 2, 4)
    for bad in ((torch.ones(1, 2),), [], [torch.ones(1, 2), torch.ones(1, 2, 2)]):
        with pytest.raises(AssertionError):
            stack_batch(bad)


def test_constructor_rules():
    module = ImgDataPreprocessor(mean=[0], std=[1, 1, 1], bgr_to_rgb=True)
    assert module._enable_normalize
    assert module._channel_conversion
    assert module.mean.shape == (1, 1, 1)
    assert not ImgDataPreprocessor()._enable_normalize
    for arguments, text in (
        ({"bgr_to_rgb": True, "rgb_to_bgr": True}, "`bgr2rgb` and `rgb2bgr`"),
        ({"mean": [0, 0, 0]}, "mean and std should be"),
        ({"std": [1]}, "mean and std should be"),
        ({"mean": [0, 0], "std": [1]}, "`mean` should have"),
        ({"mean": [0], "std": [1, 1]}, "`std` should have"),
    ):
        with pytest.raises(AssertionError, match=text):
            ImgDataPreprocessor(**arguments)


@pytest.mark.parametrize("mean", [[10.0, 20.0, 30.0], [10.0]])
def test_list_is_converted_normalised_then_padded(mean):
    images = [torch.randint(0, 256, (3, 4, 5)), torch.randint(0, 256, (3, 6, 3))]
    module = ImgDataPreprocessor(mean, [2.0], pad_size_divisor=4, pad_value=-1, rgb_to_bgr=True)
    out = module({"inputs": images, "other": "kept"})
    chain = [
        (x[[2, 1, 0]].float() - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(2.0)
        for x in images
    ]
    assert torch.equal(out["inputs"], stack_batch(chain, 4, -1))
    assert out["other"] == "kept"
    assert out["data_samples"] is None


def test_batch_tensor_and_other_ranks():
    x = torch.randint(0, 256, (2, 1, 5, 6), dtype=torch.uint8)
    out = ImgDataPreprocessor([1.0], [3.0], pad_size_divisor=4)({"inputs": x})["inputs"]
    assert out.shape == (2, 1, 8, 8)
    assert torch.equal(out[:, :, :5, :6], (x.float() - 1) / 3)
    clips = [torch.ones(3, 2, 4, 4), torch.ones(3, 2, 4, 5)]
    assert ImgDataPreprocessor([1.0], [1.0])({"inputs": clips})["inputs"].shape == (2, 3, 2, 4, 5)


def test_rejections():
    norm = ImgDataPreprocessor([0.0] * 3, [1.0] * 3)
    with pytest.raises(AssertionError, match="If the mean has 3 values"):
        norm({"inputs": [torch.ones(1, 4, 4)]})
    with pytest.raises(AssertionError, match="channel conversion"):
        ImgDataPreprocessor(bgr_to_rgb=True)({"inputs": [torch.ones(1, 4, 4)]})
    with pytest.raises(AssertionError, match="N, C, H, W"):
        norm({"inputs": torch.ones(3, 4, 4)})
    with pytest.raises(TypeError, match="expected inputs"):
        norm({"inputs": "text"})
    with pytest.raises(KeyError):
        norm({})


def test_images_of_several_dtypes_become_float():
    values = torch.arange(12).view(1, 3, 4)
    images = [values.to(torch.uint8), values.double(), values > 5]
    out = ImgDataPreprocessor([1.0], [2.0])({"inputs": images})["inputs"]
    assert torch.equal(out, torch.stack([(image.float() - 1) / 2 for image in images]))
