"""SegDataPreProcessor against an eager twin, bit by bit; copies; padding metainfo; rejections."""

# SPDX-License-Identifier: Apache-2.0
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segfast.errors import DataError
from segfast.models import BaseDataPreprocessor, SegDataPreProcessor
from segfast.structures import PixelData, SegDataSample

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def make_image(height, width, channels=3, dtype=torch.uint8):
    return torch.randint(0, 256, (channels, height, width)).to(dtype)


def make_sample(height, width, dtype=torch.uint8, **metainfo):
    label = torch.randint(0, 5, (1, height, width)).to(dtype)
    return SegDataSample(metainfo=metainfo, gt_sem_seg=PixelData(data=label))


def make_batch(*sizes, dtype=torch.uint8, label_dtype=torch.uint8):
    return {
        "inputs": [make_image(*size, dtype=dtype) for size in sizes],
        "data_samples": [make_sample(*size, dtype=label_dtype) for size in sizes],
    }


def eager(images, height, width, *, mean=MEAN, std=STD, reverse=False, pad_val=0.0):
    """The chain that the fused operator stands for."""
    batch = []
    for image in images:
        x = (image[[2, 1, 0]] if reverse else image).float()
        if mean is not None:
            x = (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
        batch.append(F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1]), value=pad_val))
    return torch.stack(batch)


def test_cast_data_keeps_structure_and_rebuilds_samples_only():
    Pair = namedtuple("Pair", "a b")
    tensor, sample = torch.ones(2), make_sample(2, 2)
    data = {
        "tensor": tensor,
        "sample": sample,
        "nested": [Pair(tensor, "text"), (tensor, None, b"raw")],
        "array": np.ones(2),
        "number": 3,
    }
    out = BaseDataPreprocessor()(data)
    assert out["tensor"] is tensor
    assert out["nested"][0].a is tensor
    assert out["nested"][1] == (tensor, None, b"raw")
    assert out["array"] is data["array"]
    assert out["number"] == 3
    assert out["sample"] is not sample
    assert out["sample"].gt_sem_seg is not sample.gt_sem_seg
    assert out["sample"].gt_sem_seg.data is sample.gt_sem_seg.data
    assert BaseDataPreprocessor()({"string": "abc"}) == {"string": "abc"}


def test_cast_data_moves_to_the_device():
    module = BaseDataPreprocessor().to("meta")
    out = module([torch.ones(2), make_sample(2, 2)])
    assert out[0].is_meta
    assert out[1].gt_sem_seg.data.is_meta
    assert module.cpu().device == torch.device("cpu")


def test_constructor_sets_the_attributes_others_read():
    module = SegDataPreProcessor(mean=[0, 0, 0], std=[1, 1, 1], bgr_to_rgb=True, size=(8, 8))
    assert module._enable_normalize
    assert module.channel_conversion
    assert module.mean.shape == (3, 1, 1)
    assert not module.state_dict()
    assert module.pad_val == 0
    assert module.seg_pad_val == 255
    assert not hasattr(SegDataPreProcessor(), "mean")
    with pytest.raises(AssertionError, match="bgr_to_rgb"):
        SegDataPreProcessor(bgr_to_rgb=True, rgb_to_bgr=True)
    with pytest.raises(AssertionError, match="std"):
        SegDataPreProcessor(mean=[0, 0, 0])
    both = {"size": (4, 4), "size_divisor": 4}
    for arguments in (both, {"test_cfg": both}):
        with pytest.raises(AssertionError, match="only one of size and size_divisor"):
            SegDataPreProcessor(**arguments)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("how", [{"size": (20, 24)}, {"size_divisor": 16}, {}])
def test_training_batch_is_bit_identical_to_the_eager_chain(dtype, reverse, how):
    batch = make_batch((11, 10), (9, 17), dtype=dtype)
    module = SegDataPreProcessor(MEAN, STD, rgb_to_bgr=reverse, pad_val=0.5, **how)
    height, width = {"size": (20, 24), "size_divisor": (16, 32)}.get(next(iter(how), ""), (11, 17))
    out = module(batch, training=True)
    assert list(out) == ["inputs", "data_samples"]
    want = eager(batch["inputs"], height, width, reverse=reverse, pad_val=0.5)
    assert torch.equal(out["inputs"], want)
    for sample, source, image in zip(
        out["data_samples"], batch["data_samples"], batch["inputs"], strict=True
    ):
        h, w = image.shape[1:]
        label = F.pad(source.gt_sem_seg.data, (0, width - w, 0, height - h), value=255)
        assert torch.equal(sample.gt_sem_seg.data, label)
        assert sample.gt_sem_seg.data.dtype == torch.uint8
        assert isinstance(sample.img_shape, torch.Size)
        assert sample.img_shape == (h, w)
        assert sample.pad_shape == (height, width)
        assert sample.padding_size == (0, width - w, 0, height - h)


def test_callers_batch_is_left_alone_even_with_a_shared_sample():
    sample = make_sample(11, 10)
    label = sample.gt_sem_seg.data.clone()
    batch = {"inputs": [make_image(11, 10)] * 2, "data_samples": [sample, sample]}
    module = SegDataPreProcessor(MEAN, STD, size=(20, 20), test_cfg={"size_divisor": 15})
    for _ in range(2):
        out = module(batch, training=True)
        assert out["inputs"].shape == (2, 3, 20, 20)
        assert out["data_samples"][1].gt_sem_seg.shape == (20, 20)
        assert torch.equal(sample.gt_sem_seg.data, label)
        assert sample.metainfo == {}
    assert module(batch, training=False)["inputs"].shape == (2, 3, 15, 15)
    assert sample.metainfo == {}


def test_other_maps_are_padded_and_labels_of_any_dtype_kept():
    sample = make_sample(4, 5, dtype=torch.int64)
    sample.gt_depth_map = PixelData(data=torch.rand(1, 4, 5))
    sample.gt_edge_map = PixelData(data=torch.ones(2, 4, 5, dtype=torch.uint8))
    out = SegDataPreProcessor(size=(6, 6), seg_pad_val=9)(
        {"inputs": [make_image(4, 5)], "data_samples": [sample]}, training=True
    )["data_samples"][0]
    assert out.gt_sem_seg.data.dtype == torch.int64
    assert out.gt_depth_map.data.shape == (1, 6, 6)
    assert out.gt_depth_map.data[0, 5, 5] == 9
    assert out.gt_edge_map.data[1].tolist()[5] == [9] * 6


def test_sample_without_ground_truth_has_no_pad_shape():
    batch = {"inputs": [make_image(4, 5)], "data_samples": [SegDataSample()]}
    out = SegDataPreProcessor(size=(6, 6))(batch, training=True)["data_samples"][0]
    assert out.pad_shape is None
    assert out.padding_size == (0, 1, 0, 2)


def test_conversion_is_for_three_channels_only():
    images = [make_image(4, 5, channels=4)]
    out = SegDataPreProcessor(bgr_to_rgb=True)({"inputs": images})
    assert torch.equal(out["inputs"], images[0].float()[None])
    assert out["data_samples"] is None


def test_equal_sizes_at_test_time_are_stacked_and_ground_truth_kept():
    batch = make_batch((7, 5), (7, 5))
    out = SegDataPreProcessor(MEAN, STD, size=(99, 99))(batch)
    assert torch.equal(out["inputs"], eager(batch["inputs"], 7, 5))
    assert out["data_samples"][0].metainfo == {}
    stacked = SegDataPreProcessor(MEAN, STD)({"inputs": torch.stack(batch["inputs"])})
    assert torch.equal(stacked["inputs"], out["inputs"])


def test_test_cfg_pads_and_notes_it_under_the_test_time_name():
    batch = make_batch((7, 5), (7, 5))
    out = SegDataPreProcessor(MEAN, STD, test_cfg={"size_divisor": 4})(batch)
    assert torch.equal(out["inputs"], eager(batch["inputs"], 8, 8))
    sample = out["data_samples"][0]
    assert sample.img_padding_size == (0, 3, 0, 1)
    assert sample.pad_shape == torch.Size((8, 8))
    assert sample.gt_sem_seg.shape == (7, 5)
    assert "padding_size" not in sample


def test_different_sizes_at_test_time_are_padded_image_by_image():
    batch = make_batch((7, 5), (4, 9))
    module = SegDataPreProcessor(MEAN, STD)
    out = module(batch)
    assert torch.equal(out["inputs"], eager(batch["inputs"], 7, 9))
    paddings = [sample.img_padding_size for sample in out["data_samples"]]
    assert paddings == [(0, 4, 0, 0), (0, 0, 0, 3)]
    made = module({"inputs": batch["inputs"]})["data_samples"]
    assert [sample.ori_shape for sample in made] == [(7, 5), (4, 9)]


def test_batch_augments_run_in_order_and_in_training_only():
    def add_one(inputs, samples):
        return inputs + 1, samples

    def double(inputs, samples):
        return inputs * 2, [*samples, "extra"]

    batch = make_batch((4, 4))
    plain = SegDataPreProcessor()(batch, training=True)["inputs"]
    module = SegDataPreProcessor(batch_augments=[add_one, double])
    out = module(batch, training=True)
    assert torch.equal(out["inputs"], (plain + 1) * 2)
    assert out["data_samples"][1] == "extra"
    assert torch.equal(module(batch)["inputs"], plain)
    single = SegDataPreProcessor(batch_augments=add_one)(batch, training=True)
    assert torch.equal(single["inputs"], plain + 1)


def test_images_that_exceed_size_alike_keep_their_size():
    batch = make_batch((8, 6), (8, 9))
    out = SegDataPreProcessor(MEAN, STD, size=(4, 9))(batch, training=True)
    assert torch.equal(out["inputs"], eager(batch["inputs"], 8, 9))


def test_images_of_several_dtypes_and_boolean_ones():
    images = [make_image(4, 5), make_image(4, 5, dtype=torch.int64), make_image(4, 5).double()]
    out = SegDataPreProcessor(MEAN, STD)({"inputs": images})["inputs"]
    assert torch.equal(out, eager(images, 4, 5))
    mask = [torch.rand(2, 4, 5) < 0.5]
    assert torch.equal(SegDataPreProcessor()({"inputs": mask})["inputs"][0], mask[0].float())


def test_rejections_name_the_file():
    batch = make_batch((8, 8))
    batch["data_samples"][0].set_metainfo({"img_path": "a/b.png"})
    smaller = make_batch((4, 8), (8, 8))
    smaller["data_samples"][1].set_metainfo({"img_path": "a/b.png"})
    with pytest.raises(DataError, match=r"a/b\.png: image is \(8, 8\), larger than .*\(4, 9\)"):
        SegDataPreProcessor(size=(4, 9))(smaller, training=True)
    with pytest.raises(DataError, match=r"a/b\.png: image has 3 channel\(s\), but .*mean has 4"):
        SegDataPreProcessor([0] * 4, [1] * 4)(batch, training=True)
    batch["inputs"][0] = make_image(8, 7)
    with pytest.raises(DataError, match=r"a/b\.png: gt_sem_seg is \(8, 8\) but its image"):
        SegDataPreProcessor()(batch, training=True)
    with pytest.raises(AssertionError, match="data_samples"):
        SegDataPreProcessor()({"inputs": batch["inputs"]}, training=True)
