"""postprocess_result of BaseSegmentor: padding, flip, resize, one channel, no samples, with logits and without."""

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


METAS = {
    "as it is": {"ori_shape": (16, 24)},
    "padded": {"ori_shape": (13, 19), "img_padding_size": (2, 3, 1, 2)},
    "flipped": {"ori_shape": (16, 24), "flip": True, "flip_direction": "horizontal"},
    "padded and flipped": {"ori_shape": (13, 20), "padding_size": (0, 4, 0, 3), "flip": True, "flip_direction": "vertical"},
    "resized": {"ori_shape": (31, 40)},
    "all of it": {"ori_shape": (9, 33), "padding_size": (0, 4, 0, 3), "flip": True, "flip_direction": "horizontal"},
}  # fmt: skip


def run_batch(model, logits, metainfo):
    samples = [SegDataSample(metainfo=metainfo) for _ in logits]
    return model.postprocess_result(logits, samples)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("small", [(4, 6), (16, 24), (5, 7), (20, 30)], ids=str)
@pytest.mark.parametrize("meta", METAS)
def test_the_same_classes_without_logits(model, meta, small, align_corners, monkeypatch):
    model.align_corners = align_corners
    logits = torch.randn(2, 7, *small)
    full = F.interpolate(logits, (16, 24), mode="bilinear", align_corners=align_corners)
    want = run_batch(model, full, METAS[meta])
    model.test_cfg = {"keep_logits": False}
    resizes = []
    interpolate = F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda *a, **k: resizes.append(a) or interpolate(*a, **k))
    samples = [SegDataSample(metainfo=METAS[meta]) for _ in logits]
    model.postprocess_result(logits, samples, (16, 24))
    for sample, expected in zip(samples, want, strict=True):
        assert "seg_logits" not in sample
        assert sample.pred_sem_seg.data.dtype == torch.int64
        assert torch.equal(sample.pred_sem_seg.data, expected.pred_sem_seg.data)
    # Only an image that is resized twice is resized in memory, and only the first time.
    twice = meta in ("resized", "all of it") and small != (16, 24)
    assert len(resizes) == (2 if twice else 0)


def test_input_size_with_logits_and_without_samples(model):
    logits = torch.randn(2, 3, 4, 6)
    want = F.interpolate(logits, (16, 24), mode="bilinear")
    for sample, full in zip(model.postprocess_result(logits, None, (16, 24)), want, strict=True):
        torch.testing.assert_close(sample.seg_logits.data, full)
        assert torch.equal(sample.pred_sem_seg.data, full.argmax(0, keepdim=True))
    model.test_cfg = {"keep_logits": False}
    for sample, full in zip(model.postprocess_result(logits, None, (16, 24)), want, strict=True):
        assert "seg_logits" not in sample
        assert torch.equal(sample.pred_sem_seg.data, full.argmax(0, keepdim=True))


def test_one_channel_without_logits_keeps_its_threshold(model):
    model.test_cfg = {"keep_logits": False, "threshold": 0.3}
    logits = torch.randn(1, 1, 4, 6)
    sample = SegDataSample(metainfo={"ori_shape": (7, 6)})
    model.postprocess_result(logits, [sample], (8, 12))
    full = F.interpolate(logits, (8, 12), mode="bilinear")
    want = F.interpolate(full, (7, 6), mode="bilinear")[0].sigmoid() > 0.3
    assert torch.equal(sample.pred_sem_seg.data, want.long())
    assert "seg_logits" not in sample


@pytest.mark.parametrize("keep_logits", [True, False])
def test_an_empty_batch_has_no_samples(model, keep_logits):
    model.test_cfg = {"keep_logits": keep_logits}
    assert model.postprocess_result(torch.randn(0, 3, 4, 6), [], (8, 12)) == []
    assert model.postprocess_result(torch.randn(0, 3, 4, 6)) == []
