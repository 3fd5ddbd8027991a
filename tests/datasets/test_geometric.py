"""RandomCrop, RandomFlip and Pad: image and label move together."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from segfast.datasets import Pad, RandomCrop, RandomFlip
from segfast.errors import ConfigError
from segfast.registry import TRANSFORMS


def sample(height=30, width=40, seed=0):
    """Every pixel knows where it came from: blue is its row, green its column, label their sum."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    image = np.stack([rows, columns, rows * 0], -1)
    return {
        "img": image,
        "gt_seg_map": rows + columns,
        "seg_fields": ["gt_seg_map"],
        "rng": np.random.default_rng(seed),
    }


def assert_aligned(results):
    image = results["img"]
    np.testing.assert_array_equal(image[..., 0] + image[..., 1], results["gt_seg_map"])


def test_crop_cuts_one_window_out_of_both():
    corners = set()
    for seed in range(50):
        results = RandomCrop((20, 25))(sample(seed=seed))
        assert results["img"].shape == (20, 25, 3)
        assert results["img_shape"] == results["gt_seg_map"].shape == (20, 25)
        assert_aligned(results)
        corners.add(tuple(results["img"][0, 0, :2].tolist()))
    assert {row for row, _ in corners} == set(range(11))
    assert max(column for _, column in corners) == 15


def test_crop_does_not_keep_the_whole_image_alive():
    results = RandomCrop(8)(sample())
    assert results["img"].base is None
    assert results["gt_seg_map"].base is None


def test_crop_leaves_small_images_alone():
    results = RandomCrop((100, 10))(sample())
    assert results["img_shape"] == (30, 10)
    assert_aligned(results)


def two_halves(**kwargs):
    results = sample(64, 64, **kwargs)
    results["gt_seg_map"] = np.zeros((64, 64), np.uint8)
    results["gt_seg_map"][:, 32:] = 1
    return results


def test_cat_max_ratio_prefers_mixed_windows():
    def shares(ratio):
        crops = [RandomCrop(16, ratio)(two_halves(seed=k))["gt_seg_map"] for k in range(60)]
        return np.array([max(crop.mean(), 1 - crop.mean()) for crop in crops])

    assert (shares(1.0) == 1).mean() > 0.5
    assert (shares(0.75) <= 0.75).mean() > 0.6


def test_cat_max_ratio_does_not_count_ignored_pixels():
    results = two_halves()
    results["gt_seg_map"][:] = 255
    results["gt_seg_map"][0, 0] = 1
    crop = RandomCrop(16, 0.75)
    assert crop._choose_box(results)  # nothing ever fits: the last window is taken
    from segfast.datasets.transforms.geometric import _label_counts

    for dtype in (np.uint8, np.int32):
        labels = np.array([[0, 0, 1, 255]], dtype=dtype)
        assert _label_counts(labels, 255).tolist() == [2, 1]
        assert _label_counts(labels, 1).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("direction", "reverse"),
    [("horizontal", np.s_[:, ::-1]), ("vertical", np.s_[::-1]), ("diagonal", np.s_[::-1, ::-1])],
)
def test_flip(direction, reverse):
    before = sample()
    results = RandomFlip(1.0, direction)(sample())
    np.testing.assert_array_equal(results["img"], before["img"][reverse])
    np.testing.assert_array_equal(results["gt_seg_map"], before["gt_seg_map"][reverse])
    assert results["flip"] is True
    assert results["flip_direction"] == direction


def test_flip_probabilities():
    def counts(flip):
        drawn = [flip(sample(4, 4, seed=k))["flip_direction"] for k in range(400)]
        return {name: drawn.count(name) for name in set(drawn)}

    half = counts(RandomFlip(0.5, ["horizontal", "vertical"]))
    assert 70 < half["horizontal"] < 130
    assert 70 < half["vertical"] < 130
    assert 160 < half[None] < 240
    each = counts(RandomFlip([0.1, 0.8], ["horizontal", "vertical"]))
    assert each["vertical"] > 280
    assert each["horizontal"] < 80
    assert counts(RandomFlip(0.0)) == {None: 400}


def test_flip_swaps_labels():
    results = sample(2, 3)
    results["gt_seg_map"] = np.array([[0, 1, 2], [2, 2, 1]], np.uint8)
    flipped = RandomFlip(1.0, swap_seg_labels=[(1, 2)])(results)
    assert flipped["gt_seg_map"].tolist() == [[1, 2, 0], [2, 1, 1]]


@pytest.mark.parametrize(
    ("kwargs", "size"),
    [
        (dict(size=(50, 45)), (45, 50)),
        (dict(size=(10, 45)), (45, 40)),
        (dict(size_divisor=32), (32, 64)),
        (dict(pad_to_square=True), (40, 40)),
        (dict(pad_to_square=True, size_divisor=32), (64, 64)),
    ],
)
def test_pad_right_and_bottom(kwargs, size):
    results = Pad(**kwargs, pad_val=dict(img=7, seg=200))(sample())
    assert results["img"].shape == (*size, 3)
    assert results["gt_seg_map"].shape == results["pad_shape"] == results["img_shape"] == size
    np.testing.assert_array_equal(results["img"][:30, :40], sample()["img"])
    assert (results["img"][30:] == 7).all()
    assert (results["gt_seg_map"][:, 40:] == 200).all()


def test_pad_defaults_and_modes():
    results = Pad(size=(41, 31))(sample())
    assert results["img"][-1, -1].tolist() == [0, 0, 0]
    assert results["gt_seg_map"][-1, -1] == 255
    edge = Pad(size=(41, 31), padding_mode="edge")(sample())
    assert edge["img"][-1, -1].tolist() == [29, 39, 0]


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(type="RandomCrop", crop_size=(0, 4)), "crop_size: expected one or two"),
        (dict(type="RandomFlip", prob=1.5), r"prob: expected one number in \[0, 1\]"),
        (dict(type="RandomFlip", prob=[0.5, 0.5]), "prob: expected"),
        (dict(type="RandomFlip", direction="left"), "direction: expected one of horizontal"),
        (dict(type="Pad"), "size: give size"),
        (dict(type="Pad", size=(4, 4), size_divisor=2), "size: give either"),
        (dict(type="Pad", size_divisor=2, padding_mode="zero"), "padding_mode: expected one of"),
    ],
)
def test_wrong_arguments(cfg, message):
    with pytest.raises(ConfigError, match=message):
        TRANSFORMS.build(cfg, path="pipeline.0")
