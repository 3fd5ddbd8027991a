"""Resize and RandomResize: sizes, and image and label staying on each other."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

from segfast.datasets import RandomResize, Resize
from segfast.datasets.transforms.resize import resize_image, resize_nearest
from segfast.errors import ConfigError
from segfast.registry import TRANSFORMS


def sample(height=40, width=60, seed=0):
    """An image whose blue channel is its label times 80, so that both can be compared."""
    blocks = np.random.default_rng(seed).integers(0, 3, (height // 10, width // 10))
    labels = np.kron(blocks, np.ones((10, 10))).astype(np.uint8)
    image = np.stack([labels * 80] * 3, -1)
    return {"img": image, "gt_seg_map": labels, "seg_fields": ["gt_seg_map"]}


def agreement(results):
    """Share of pixels where the label is the one that the image shows."""
    shown = np.rint(results["img"][..., 0] / 80)
    return (shown == results["gt_seg_map"]).mean()


@pytest.mark.parametrize(
    ("scale", "keep_ratio", "size"),
    [
        ((30, 20), False, (20, 30)),
        ((90, 50), False, (50, 90)),
        (32, False, (32, 32)),
        ((90, 50), True, (50, 75)),
        ((50, 90), True, (50, 75)),
        ((60, 60), True, (40, 60)),
        ((1, 1), True, (1, 1)),
    ],
)
def test_sizes(scale, keep_ratio, size):
    results = Resize(scale=scale, keep_ratio=keep_ratio)(sample())
    assert results["img"].shape == (*size, 3)
    assert results["gt_seg_map"].shape == results["img_shape"] == size
    assert results["scale_factor"] == (size[1] / 60, size[0] / 40)
    assert results["keep_ratio"] is keep_ratio


def test_scale_factor():
    assert Resize(scale_factor=0.5)(sample())["img_shape"] == (20, 30)
    assert Resize(scale_factor=(0.5, 2))(sample())["img_shape"] == (80, 30)


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
@pytest.mark.parametrize("scale", [(120, 80), (180, 120), (45, 30), (30, 20)])
def test_labels_stay_on_their_pixels(scale, backend):
    results = Resize(scale=scale, backend=backend)(sample())
    assert agreement(results) > 0.85
    assert set(np.unique(results["gt_seg_map"])) == {0, 1, 2}
    flipped = Resize(scale=scale, backend=backend)(sample())
    flipped["gt_seg_map"] = np.roll(flipped["gt_seg_map"], 3, axis=1)
    assert agreement(flipped) < agreement(results)


def test_uint8_bilinear_is_what_pillow_computes():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for size in [(20, 31), (77, 100)]:
        expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
        resized = resize_image(image, size, backend="pillow")
        assert np.abs(resized.astype(int) - np.asarray(expected, dtype=int)).max() <= 1
        assert resized.flags.c_contiguous
        shrunk = size[0] < image.shape[0]  # where cv2 skips pixels; enlarging is the same in both
        assert (np.abs(resize_image(image, size).astype(int) - resized).max() > 20) == shrunk


def test_cv2_takes_the_two_nearest_pixels():
    row = np.array([[0, 0, 90, 0, 0, 0, 0, 0, 0]], np.uint8)
    assert resize_image(row, (1, 3)).tolist() == [[0, 0, 0]]  # centres 1, 4, 7
    assert resize_image(row, (1, 3), backend="pillow")[0, 0] > 10
    assert resize_image(row, (1, 6)).tolist() == [[0, 68, 0, 0, 0, 0]]  # centres 0.25, 1.75, ...
    assert resize_image(row, (1, 3), "bicubic").tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3), (8, 9, 13)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_any_dtype_and_channels(dtype, shape, interpolation):
    image = np.full(shape, 100, dtype=dtype)
    resized = resize_image(image, (5, 12), interpolation)
    assert resized.shape == (5, 12, *shape[2:])
    assert resized.dtype == dtype
    np.testing.assert_allclose(resized, 100, rtol=1e-6)


def test_nearest():
    row = np.arange(4)[None]
    assert resize_nearest(row, (1, 2)).tolist() == [[0, 2]]
    assert resize_nearest(row, (1, 3)).tolist() == [[0, 1, 2]]
    assert resize_nearest(row, (1, 2), "pillow").tolist() == [[1, 3]]
    for backend in ("cv2", "pillow"):
        twice = resize_nearest(row, (1, 8), backend)
        assert twice.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
        assert resize_nearest(row, (2, 4), backend).tolist() == [[0, 1, 2, 3]] * 2
    labels = np.random.default_rng(0).integers(0, 9, (31, 47), dtype=np.uint8)
    for size in [(13, 20), (64, 50)]:
        expected = Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST)
        np.testing.assert_array_equal(resize_nearest(labels, size, "pillow"), expected)


def test_arguments_stand_where_mmcv_has_them():
    resize = Resize((30, 20), None, False, False, "pillow", "nearest")
    assert (resize.backend, resize.interpolation) == ("pillow", "nearest")
    assert "backend='pillow'" in repr(resize)
    results = RandomResize((30, 20), (1, 1), backend="pillow")(sample())
    expected = Resize((30, 20), backend="pillow")(sample())
    np.testing.assert_array_equal(results["img"], expected["img"])
    assert not np.array_equal(results["img"], Resize((30, 20))(sample())["img"])


def test_random_resize_draws_within_the_range():
    resize = RandomResize(scale=(60, 40), ratio_range=(0.5, 2.0), keep_ratio=True)
    rng = np.random.default_rng(0)
    widths = [resize({**sample(), "rng": rng})["img_shape"][1] for _ in range(100)]
    assert 28 <= min(widths) < 40
    assert 100 < max(widths) <= 120
    pair = RandomResize(scale=[(30, 20), (60, 40)])
    sizes = {pair({**sample(), "rng": rng})["img_shape"] for _ in range(50)}
    assert all(20 <= h <= 40 and 30 <= w <= 60 for h, w in sizes)
    assert len(sizes) > 10


def test_random_resize_truncates_and_repeats_for_one_stream():
    resize = RandomResize(scale=(61, 41), ratio_range=(0.5, 0.5))
    assert resize(sample())["img_shape"] == (20, 30)
    free = RandomResize(scale=(60, 40), ratio_range=(0.5, 2.0))
    shapes = [free({**sample(), "rng": np.random.default_rng(7)})["img_shape"] for _ in range(2)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(type="Resize"), "scale: give either scale"),
        (dict(type="Resize", scale=(1, 2, 3)), "scale: expected one or two positive ints"),
        (dict(type="Resize", scale=0), "scale: expected one or two positive ints"),
        (dict(type="Resize", scale=8, interpolation="area"), "interpolation: expected one of"),
        (dict(type="Resize", scale=8, backend="tf"), "backend: expected 'cv2' or 'pillow', got"),
        (dict(type="RandomResize", scale=(4, 4)), "ratio_range: give scale"),
        (dict(type="RandomResize", scale=8, ratio_range=(1, 1), k=1), "Resize has no such argu"),
    ],
)
def test_wrong_arguments(cfg, message):
    with pytest.raises(ConfigError, match=message):
        TRANSFORMS.build(cfg, path="pipeline.0")


@pytest.mark.parametrize("kind", ["torch.nn.Conv2d", "torch.hub.load", "PackSegInput", 5, None])
def test_what_resizes_is_a_transform(kind):
    with pytest.raises(ConfigError, match=r"expected a transform|did you mean"):
        RandomResize(scale=[(8, 8), (9, 9)], resize_type=kind)
    assert RandomResize(scale=[(8, 8), (9, 9)], resize_type=Resize).resize["type"] is Resize
