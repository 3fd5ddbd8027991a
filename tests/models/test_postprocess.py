"""postprocess_result of BaseSegmentor: padding, flip, resize, one channel, no samples."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segfast.models import Segmentor
from segfast.structures import SegDataSample


@pytest.fixture
def model():
    return Segmentor(nn.Identity())


def run(model, logits, **metainfo):
    sample = SegDataSample(metainfo=metainfo)
    samples = [sample]
    out = model.postprocess_result(logits, samples)
    assert out is samples
    assert out[0] is sample
    return sample


@pytest.mark.parametrize("key", ["img_padding_size", "padding_size"])
def test_padding_is_cut_off_left_right_top_bottom(model, key):
    logits = torch.randn(1, 3, 10, 12)
    sample = run(model, logits, ori_shape=(7, 6), **{key: (1, 5, 2, 1)})
    assert torch.equal(sample.seg_logits.data, logits[0, :, 2:9, 1:7])
    assert torch.equal(sample.pred_sem_seg.data, logits[:, :, 2:9, 1:7].argmax(1))
    assert sample.pred_sem_seg.data.dtype == torch.int64


def test_test_time_padding_wins(model):
    logits = torch.randn(1, 3, 4, 4)
    meta = {"img_padding_size": (0, 1, 0, 0), "padding_size": (0, 0, 0, 3)}
    assert run(model, logits, ori_shape=(4, 3), **meta).seg_logits.shape == (4, 3)


def test_flips_are_undone_after_unpadding(model):
    logits = torch.randn(1, 2, 4, 6)
    meta = {"ori_shape": (4, 5), "flip": True, "img_padding_size": (0, 1, 0, 0)}
    sample = run(model, logits, flip_direction="horizontal", **meta)
    assert torch.equal(sample.seg_logits.data, logits[0, :, :, :5].flip(2))
    sample = run(model, logits, flip_direction="vertical", **meta)
    assert torch.equal(sample.seg_logits.data, logits[0, :, :, :5].flip(1))
    with pytest.raises(AssertionError, match="diagonal"):
        run(model, logits, flip_direction="diagonal", **meta)


@pytest.mark.parametrize("align_corners", [False, True])
def test_resize_to_the_original_shape(model, align_corners):
    model.align_corners = align_corners
    logits = torch.randn(1, 3, 5, 6)
    sample = run(model, logits, ori_shape=(13, 9))
    want = F.interpolate(logits, (13, 9), mode="bilinear", align_corners=align_corners)[0]
    torch.testing.assert_close(sample.seg_logits.data, want)
    assert torch.equal(sample.pred_sem_seg.data, want.argmax(0, keepdim=True))


def test_missing_or_wrong_original_shape(model):
    with pytest.raises(KeyError, match="ori_shape"):
        run(model, torch.randn(1, 3, 4, 4))
    with pytest.raises(ValueError, match="unpack"):
        run(model, torch.randn(1, 3, 4, 4), ori_shape=(4, 4, 3))


def test_one_channel_stores_probabilities(model):
    logits = torch.tensor([[[[-2.0, -0.1, 0.1, 2.0]]]])
    sample = run(model, logits, ori_shape=(1, 4))
    torch.testing.assert_close(sample.seg_logits.data, logits[0].sigmoid())
    assert sample.pred_sem_seg.data.tolist() == [[[0, 0, 1, 1]]]


def test_no_samples_means_logits_as_they_are(model):
    logits = torch.randn(2, 3, 4, 5)
    results = model.postprocess_result(logits)
    assert len(results) == 2
    assert torch.equal(results[1].seg_logits.data, logits[1])
