"""DataPreprocessor: kinds of inputs, channel orders, metainfo, ground truth."""

# SPDX-License-Identifier: Apache-2.0

import warnings

import pytest
import torch
import torch.nn.functional as F

from segfast.errors import ConfigError
from segfast.models import DataPreprocessor
from segfast.registry import MODELS
from segfast.structures import BaseDataElement, DataSample

RED_AND_BLUE = [2, 1, 0]


def pixels(*shape):
    return torch.randint(0, 255, shape)


def norm(images):
    return (images - 127.5) / 127.5


def samples(count, **metainfo):
    return [DataSample(metainfo=metainfo) for _ in range(count)]


def test_settings():
    module = DataPreprocessor(
        mean=[0, 0, 0], std=[255, 255, 255], pad_size_divisor=16, pad_value=10
    )
    assert module.device.type == "cpu"
    assert module.mean.flatten().tolist() == [0, 0, 0]
    assert module.std.shape == (3, 1, 1)
    assert (module.pad_size_divisor, module.pad_value, module.pad_mode) == (16, 10, "constant")
    assert DataPreprocessor().mean.tolist() == [[[127.5]]]
    assert not DataPreprocessor(mean=None, std=None)._enable_normalize
    assert DataPreprocessor(data_keys=None).data_keys == []
    assert DataPreprocessor(data_keys=["a", "b"]).data_keys == ["a", "b"]
    assert not list(module.state_dict())
    with pytest.raises(AssertionError, match="output_channel_order"):
        DataPreprocessor(output_channel_order="GBR")
    with pytest.raises(AssertionError, match="mean and std should be"):
        DataPreprocessor(mean=None)
    built = MODELS.build({"type": "DataPreprocessor", "mean": 0, "std": 255})
    assert built.std.tolist() == [[[255]]]
    with pytest.raises(ConfigError, match="non_concentate_keys"):
        MODELS.build({"type": "DataPreprocessor", "non_concatenate_keys": "a"})


@pytest.mark.parametrize("given", ["feature", ["feature"]])
def test_further_keys_belong_to_one_instance(given):
    module = DataPreprocessor(non_image_keys=given, non_concentate_keys=given)
    assert list(module._NON_IMAGE_KEYS) == ["noise", "feature"]
    assert "feature" in module._NON_CONCATENATE_KEYS
    fresh = DataPreprocessor()
    assert "feature" not in fresh._NON_IMAGE_KEYS
    assert "feature" not in fresh._NON_CONCATENATE_KEYS


def test_list_is_padded_in_raw_units():
    module = DataPreprocessor(output_channel_order="RGB", pad_value=42)
    images = [pixels(3, 3, 5), pixels(3, 5, 3)]
    out = module({"inputs": images, "other": "kept"})
    padded = [F.pad(images[0], (0, 0, 0, 2), value=42), F.pad(images[1], (0, 2, 0, 0), value=42)]
    torch.testing.assert_close(out["inputs"], norm(torch.stack(padded)[:, RED_AND_BLUE]))
    assert out["other"] == "kept"
    sample = out["data_samples"]
    assert [size.tolist() for size in sample.padding_size] == [[0, 2, 0], [0, 0, 2]]
    assert sample.padding_size[0].dtype == torch.float32
    assert sample.img_output_channel_order == ["RGB", "RGB"]


def test_tensor_is_padded_in_normalised_units():
    x = pixels(2, 3, 5, 7)
    out = DataPreprocessor(pad_size_divisor=4, pad_value=-2)({"inputs": x})
    torch.testing.assert_close(out["inputs"], F.pad(norm(x), (0, 1, 0, 3), value=-2))
    assert [size.tolist() for size in out["data_samples"].padding_size] == [[0, 3, 1]] * 2


@pytest.mark.parametrize("shape", [(3, 5, 5), (2, 3, 5, 5), (2, 4, 3, 5, 5)])
def test_ranks_of_a_tensor(shape):
    x = pixels(*shape)
    out = DataPreprocessor(output_channel_order="RGB")({"inputs": x})
    torch.testing.assert_close(out["inputs"], norm(x).flip(-3))
    assert len(out["data_samples"]) == (1 if len(shape) == 3 else 2)
    with pytest.raises(AssertionError, match=r"got \(2, 25\)"):
        DataPreprocessor()({"inputs": pixels(2, 25)})


@pytest.mark.parametrize(
    ("metainfo", "channels", "converted", "order"),
    [
        ({}, 3, True, "RGB"),
        ({"img_channel_order": "BGR"}, 3, True, "RGB"),
        ({"img_channel_order": "RGB"}, 3, False, "RGB"),
        ({"img_channel_order": "rgb"}, 3, False, "rgb"),
        ({"gt_channel_order": "RGB"}, 3, True, "RGB"),
        ({"img_channel_order": "RGB", "img_color_type": "unchanged"}, 3, True, "RGB"),
        ({"img_color_type": "grayscale"}, 1, False, "single"),
        ({"img_channel_order": "single"}, 1, False, "single"),
        ({}, 1, False, "single"),
    ],
)
def test_where_the_channel_order_comes_from(metainfo, channels, converted, order):
    module = DataPreprocessor(output_channel_order="RGB", data_keys=None)
    x = pixels(2, channels, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = module({"inputs": x, "data_samples": samples(2, **metainfo)})
    torch.testing.assert_close(out["inputs"], norm(x[:, RED_AND_BLUE] if converted else x))
    assert out["data_samples"].img_output_channel_order == [order] * 2


def test_wrong_channel_orders():
    module = DataPreprocessor(output_channel_order="RGB", data_keys=None)
    x = pixels(2, 3, 4, 4)
    mixed = [*samples(1, img_channel_order="RGB"), *samples(1, img_channel_order="BGR")]
    with pytest.raises(AssertionError, match="expected one channel order for all 'img'"):
        module({"inputs": x, "data_samples": mixed})
    with pytest.raises(AssertionError, match="grayscale, but img has 3 channels"):
        module({"inputs": x, "data_samples": samples(2, img_color_type="grayscale")})
    with pytest.raises(AssertionError, match="2 images and 3 data_samples"):
        module({"inputs": x, "data_samples": samples(3)})
    with pytest.raises(ValueError, match="got 'RGBA'"):
        module({"inputs": x, "data_samples": samples(2, img_channel_order="RGBA")})
    with pytest.raises(ValueError, match=r"expected 3 or 4 channels .* got 5"):
        module({"inputs": pixels(2, 5, 4, 4)})
    with pytest.raises(AssertionError, match="mean has 3 values, but the images have 4 channels"):
        DataPreprocessor([0] * 3, [1] * 3)({"inputs": pixels(1, 4, 2, 2)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            module({"inputs": x[:, :1]})
    assert [str(w.message) for w in caught] == ["'img' has one channel and is not converted to RGB"]


def test_dict_inputs():
    inputs = {
        "img_A": [pixels(3, 5, 5) for _ in range(3)],
        "img_B": [pixels(3, 5, 5) for _ in range(3)],
        "rgba": pixels(3, 4, 5, 5),
        "noise": [torch.randn(16) for _ in range(3)],
        "num_batches": 3,
        "mode": ["ema"] * 3,
    }
    given = samples(3, img_A_channel_order="RGB", img_B_channel_order="BGR")
    module = DataPreprocessor(output_channel_order="RGB", data_keys=None)
    out = module({"inputs": inputs, "data_samples": given})
    batch = out["inputs"]
    assert list(batch) == list(inputs)
    torch.testing.assert_close(batch["img_A"], norm(torch.stack(inputs["img_A"])))
    torch.testing.assert_close(batch["img_B"], norm(torch.stack(inputs["img_B"])[:, RED_AND_BLUE]))
    torch.testing.assert_close(batch["rgba"], norm(inputs["rgba"][:, [2, 1, 0, 3]]))
    assert torch.equal(batch["noise"], torch.stack(inputs["noise"]))
    assert (batch["num_batches"], batch["mode"]) == (3, "ema")
    assert out["data_samples"].rgba_output_channel_order == ["RGB"] * 3
    assert isinstance(inputs["mode"], list)  # the caller's batch is as it was


def test_list_of_dicts():
    one = [{"img": pixels(3, 4, 4), "noise": torch.randn(5), "num_batches": 2} for _ in range(2)]
    out = DataPreprocessor()({"inputs": one})["inputs"]
    assert list(out) == ["img", "noise", "num_batches"]
    torch.testing.assert_close(out["img"], norm(torch.stack([x["img"] for x in one])))
    assert out["noise"].shape == (2, 5)
    assert out["num_batches"] == 2


def test_dict_without_images_has_no_samples():
    inputs = {"num_batches": 2, "mode": "ema", "noise": torch.zeros(2, 3)}
    out = DataPreprocessor()({"inputs": inputs})
    assert out["inputs"] == inputs
    assert out["data_samples"] is None


def test_wrong_dict_inputs():
    module = DataPreprocessor(data_keys=None)
    with pytest.raises(ValueError, match=r"sample 0: 'img_B' was padded by .* but 'img_A' by"):
        module(
            {
                "inputs": {
                    "img_A": [pixels(3, 3, 5), pixels(3, 5, 5)],
                    "img_B": [pixels(3, 5, 5), pixels(3, 5, 5)],
                }
            }
        )
    with pytest.raises(AssertionError, match="expected one value of 'mode'"):
        module({"inputs": {"mode": ["ema", "orig"]}})
    with pytest.raises(AssertionError, match="expected tensors to stack for 'text'"):
        module({"inputs": {"text": ["a", "b"]}})
    for bad in ("text", 3, [], None):
        with pytest.raises(ValueError, match="expected inputs as a tensor"):
            module({"inputs": bad})


@pytest.mark.parametrize("alike", [True, False])
def test_ground_truth(alike):
    module = DataPreprocessor(data_keys=["gt_img", "AA"], output_channel_order="RGB")
    module.stack_data_sample = alike
    shapes = [(3, 5, 5)] * 3 if alike else [(3, 5, 5), (3, 4, 4), (3, 5, 6)]

    def given():
        metainfo = {"gt_channel_order": "RGB", "other_channel_order": "BGR"}
        return [DataSample(gt_img=pixels(*s), AA=pixels(*s), metainfo=metainfo) for s in shapes]

    for training, process in ((True, norm), (False, lambda x: x)):
        before = given()
        batch = {"inputs": pixels(3, 3, 2, 2), "data_samples": before}
        after = module(batch, training)["data_samples"]
        after = after.split(allow_nonseq_value=True) if alike else after
        for old, new in zip(before, after, strict=True):
            # gt_img is RGB: kept in training, BGR for metrics. AA counts as BGR.
            gt, other = (old.gt_img, old.AA.flip(0)) if training else (old.gt_img.flip(0), old.AA)
            torch.testing.assert_close(new.gt_img, process(gt))
            torch.testing.assert_close(new.AA, process(other))
            assert new.gt_img_enable_norm is True
            assert new.gt_img_output_channel_order == ("RGB" if training else "BGR")
            assert new.AA_mean.tolist() == [[[127.5]]]
            assert old.gt_img.dtype == torch.int64  # the caller's sample is as it was


def test_ground_truth_that_is_missing():
    module = DataPreprocessor(data_keys=["missing", "gt_img"])
    given = [DataSample(gt_img=pixels(3, 4, 4))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for training in (False, True, True):
            out = module({"inputs": pixels(1, 3, 4, 4), "data_samples": given}, training)
    assert ["missing" in str(w.message) for w in caught] == [True]
    assert out["data_samples"].gt_img.max() <= 1


def test_samples_of_another_class():
    given = [BaseDataElement(gt_img=pixels(3, 4, 4)) for _ in range(2)]
    batch = {"inputs": pixels(2, 3, 4, 4), "data_samples": given}
    with pytest.raises(AssertionError, match="stack_data_sample=False"):
        DataPreprocessor()(batch)
    out = DataPreprocessor(stack_data_sample=False)(batch)["data_samples"]
    assert [sample.img_output_channel_order for sample in out] == ["BGR", "BGR"]


def test_without_normalisation_nothing_is_converted_to_float():
    module = DataPreprocessor(mean=None, std=None, pad_value=7, pad_size_divisor=4)
    images = [torch.zeros(3, 3, 3, dtype=torch.uint8), torch.ones(3, 2, 4, dtype=torch.uint8)]
    given = [DataSample(gt_img=image) for image in images]
    module.stack_data_sample = False
    out = module({"inputs": images, "data_samples": given}, training=True)
    assert out["inputs"].dtype == torch.uint8
    assert out["inputs"][0, 0].tolist() == [[0, 0, 0, 7]] * 3 + [[7] * 4]
    sample = out["data_samples"][0]
    assert torch.equal(sample.gt_img, images[0])
    assert (sample.gt_img_enable_norm, sample.gt_img_mean) == (False, None)


def test_input_view():
    module = DataPreprocessor(
        mean=[1, 2, 3], std=[1, 1, 1], input_view=(1, 1, 1, 3), data_keys=None
    )
    x = torch.zeros(2, 3, 4, 3)
    assert module({"inputs": x})["inputs"][0, 0, 0].tolist() == [-1, -2, -3]
    with pytest.raises(AssertionError):
        DataPreprocessor(mean=[1, 2, 3], std=[1, 1, 1])._do_norm(torch.zeros(5, 4))
    flat = DataPreprocessor(mean=[1, 2, 3], std=[1, 1, 1])._do_norm(torch.zeros(5, 3))
    assert flat[4].tolist() == [-1, -2, -3]


@pytest.mark.cuda
def test_cuda_moves_and_agrees():
    batch = {
        "inputs": {"img": [pixels(3, 5, 5), pixels(3, 4, 5)], "noise": torch.zeros(2, 3)},
        "data_samples": [DataSample(gt_img=pixels(3, 5, 5)) for _ in range(2)],
    }
    module = DataPreprocessor(pad_value=3, output_channel_order="RGB")
    host = module(batch, True)
    device = module.cuda()(batch, True)
    assert device["inputs"]["noise"].is_cuda
    assert torch.equal(device["inputs"]["img"].cpu(), host["inputs"]["img"])
    assert torch.equal(device["data_samples"].gt_img.cpu(), host["data_samples"].gt_img)
    assert not device["data_samples"].padding_size[0].is_cuda
