"""PhotoMetricDistortion: colours change as HSV says, geometry does not."""

# SPDX-License-Identifier: Apache-2.0
import colorsys

import numpy as np
import pytest

from segfast.datasets import PhotoMetricDistortion
from segfast.datasets.transforms.photometric import scale_saturation, turn_hue
from segfast.errors import DataError


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)


def hsv(image):
    pixels = image[..., ::-1].reshape(-1, 3) / 255
    return np.array([colorsys.rgb_to_hsv(*pixel) for pixel in pixels])


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_saturation_scales_s_only(image, factor):
    before, after = hsv(image), hsv(scale_saturation(image, factor))
    np.testing.assert_allclose(after[:, 2], before[:, 2], atol=1e-9)
    bright = before[:, 2] > 0.3
    expected = np.minimum(before[:, 1] * factor, 1)
    np.testing.assert_allclose(after[bright, 1], expected[bright], atol=0.02)
    if factor == 1.0:
        np.testing.assert_array_equal(scale_saturation(image, 1.0), image)


@pytest.mark.parametrize("steps", [-18, 10, 60])
def test_hue_turns_by_two_degrees_a_step(image, steps):
    before, after = hsv(image), hsv(turn_hue(image, steps))
    vivid = (before[:, 1] > 0.4) & (before[:, 2] > 0.4)
    turned = (after[vivid, 0] - before[vivid, 0] - steps / 180 + 0.5) % 1 - 0.5
    assert np.abs(turned).max() < 0.02
    np.testing.assert_allclose(after[:, 2], before[:, 2], atol=0.01)


def test_brightness_and_contrast_clip():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)  # no hue to turn

    def run(seed, **kwargs):
        results = {"img": grey, "rng": np.random.default_rng(seed)}
        return PhotoMetricDistortion(**kwargs)(results)["img"][0].astype(int)

    shifts, slopes = set(), set()
    for seed in range(30):
        brighter = run(seed, contrast_range=(1, 1))
        assert (brighter[:, 0] == brighter.T).all()
        shift = brighter[128, 0] - 128
        np.testing.assert_array_equal(brighter[:, 0], np.clip(np.arange(256) + shift, 0, 255))
        shifts.add(shift)
        contrast = run(seed, brightness_delta=0)[:, 0]
        slopes.add(round(float(contrast[100] / 100), 1))
        assert contrast[0] == 0
        assert (np.diff(contrast) >= 0).all()
    assert -33 <= min(shifts) < -10
    assert 10 < max(shifts) <= 32
    assert min(slopes) < 0.7
    assert max(slopes) > 1.2
    assert 1.0 in slopes


def test_steps_are_drawn_from_the_sample_stream(image):
    def run(seed):
        results = {"img": image.copy(), "rng": np.random.default_rng(seed)}
        return PhotoMetricDistortion()(results)["img"]

    np.testing.assert_array_equal(run(3), run(3))
    outputs = [run(seed) for seed in range(40)]
    assert len({output.tobytes() for output in outputs}) > 30
    assert all(output.shape == image.shape and output.dtype == np.uint8 for output in outputs)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4)])
def test_only_colour_images_of_bytes(shape):
    with pytest.raises(DataError, match=r"x\.png: PhotoMetricDistortion needs \(H, W, 3\) uint8"):
        PhotoMetricDistortion()({"img": np.zeros(shape, np.uint8), "img_path": "x.png"})
    with pytest.raises(DataError, match="float32"):
        PhotoMetricDistortion()({"img": np.zeros((4, 4, 3), np.float32)})
