"""PSNR: golden numbers, options, samples as the evaluator hands them over."""

# SPDX-License-Identifier: Apache-2.0

import math

import numpy as np
import pytest
import torch

from segfast.evaluation import PSNR, Evaluator, psnr
from segfast.structures import DataSample, PixelData

ONE_APART = 20 * math.log10(255)  # 48.13 dB: every pixel is off by one


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 3), (3, 32, 32)])
@pytest.mark.parametrize("crop", [0, 3])
def test_golden(shape, crop):
    order = "CHW" if shape[0] == 3 else "HWC"
    for make in (np.ones, torch.ones):
        value = psnr(make(shape), make(shape) * 2, crop_border=crop, input_order=order)
        assert value.item() == pytest.approx(ONE_APART, abs=1e-10)


def test_luma():
    one, two = np.ones((32, 32, 3)), np.ones((32, 32, 3)) * 2
    expected = 20 * math.log10(255 / (219 / 255))  # luma spans 219 of 255 steps
    assert psnr(one, two, convert_to="Y").item() == pytest.approx(expected, abs=1e-5)
    red = one.copy()
    red[..., 0] += 10
    for order, weight in (("rgb", 65.481), ("bgr", 24.966)):
        value = psnr(one, red, convert_to="y", channel_order=order)
        assert value.item() == pytest.approx(20 * math.log10(255 / (weight / 25.5)), abs=1e-4)


def test_extremes():
    zeros = np.zeros((8, 8), dtype=np.uint8)
    assert psnr(zeros, zeros).item() == math.inf
    assert psnr(zeros, zeros + 255).item() == 0
    border = torch.zeros(1, 8, 8)
    for edge in (border[:, 0], border[:, -1], border[..., 0], border[..., -1]):
        edge += 9
    assert psnr(border, torch.zeros(1, 8, 8), crop_border=1, input_order="CHW").item() == math.inf


def test_options_are_checked():
    image = np.ones((4, 4, 3))
    for options, text in (
        ({"input_order": "HH"}, "input_order"),
        ({"convert_to": "ABC"}, "convert_to"),
        ({"channel_order": "gbr"}, "channel_order"),
    ):
        with pytest.raises(ValueError, match=text):
            psnr(image, image, **options)
    with pytest.raises(ValueError, match="input_order"):
        PSNR(input_order="HH")
    with pytest.raises(AssertionError, match=r"different: \(4, 4, 3\), \(3, 4, 3\)"):
        psnr(image, image[:3])
    with pytest.raises(AssertionError, match="3 channels"):
        psnr(image[..., :2], image[..., :2], convert_to="Y")


def sample(truth, pred):
    return DataSample(gt_img=truth, output=DataSample(pred_img=pred))


def test_metric_averages_images():
    ones = torch.ones(3, 8, 8)
    evaluator = Evaluator([{"type": "PSNR"}, {"type": "PSNR", "prefix": "y", "convert_to": "Y"}])
    evaluator.process(data_samples=[sample(ones, ones * 2)])
    evaluator.process(data_samples=[sample(ones.byte(), ones.numpy() * 11)])
    metrics = evaluator.evaluate(2)
    assert metrics["PSNR"] == pytest.approx((ONE_APART + ONE_APART - 20) / 2, abs=1e-6)
    assert isinstance(metrics["PSNR"], float)
    assert metrics["y/PSNR"] == pytest.approx(
        metrics["PSNR"] - 20 * math.log10(219 / 255), abs=1e-4
    )


def test_metric_reads_clips_dicts_and_elements():
    metric = PSNR(input_order="CHW")
    clip = torch.ones(2, 3, 8, 8)
    pred = torch.stack([clip[0] + 1, clip[1] + 10])
    metric.process(None, [{"gt_img": clip, "output": {"pred_img": pred}}])
    assert metric.results[0]["PSNR"].item() == pytest.approx(ONE_APART - 10, abs=1e-5)
    nested = {
        "data_samples": {"gt_img": {"data": clip[0]}},
        "output": {"pred_img": {"data": pred[0]}},
    }
    metric.process(None, [nested])
    made = DataSample(gt_img=PixelData(data=clip[0]), output=DataSample(pred_img=pred[0]))
    metric.process(None, [made.to_dict()])
    for result in metric.results[1:]:
        assert result["PSNR"].item() == pytest.approx(ONE_APART, abs=1e-5)
    with pytest.raises(KeyError, match="no field pred_img, only fake_img"):
        metric.process(None, [{"gt_img": clip, "output": {"fake_img": pred}}])


@pytest.mark.cuda
def test_entries_stay_on_the_device():
    metric = PSNR()
    ones = torch.ones(3, 8, 8)
    metric.process(None, [sample(ones, ones.cuda() * 2).to_dict()])
    assert metric.results[0]["PSNR"].is_cuda
    assert metric.evaluate(1)["PSNR"] == pytest.approx(ONE_APART)
