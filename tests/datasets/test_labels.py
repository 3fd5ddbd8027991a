"""Masks as class indices, and the rule from raw values to labels."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

from segfast.datasets.labels import LabelRule, read_mask
from segfast.errors import DataError


def rule(num_classes=None, label_map=None, **kwargs):
    pairs = None if label_map is None else tuple(label_map.items())
    return LabelRule(num_classes, label_map=pairs, **kwargs)


def apply(values, **kwargs):
    return rule(**kwargs).apply(np.array([values], dtype=np.uint8), "m.png")[0].tolist()


def test_palette_png_is_read_as_indices(tmp_path, mask):
    image = Image.fromarray(mask)
    image.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10])
    assert image.mode == "P"
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), mask)


def test_one_bit_mask(tmp_path, mask):
    Image.fromarray(mask == 1).save(tmp_path / "m.png")
    assert Image.open(tmp_path / "m.png").mode == "1"
    read = read_mask(tmp_path / "m.png")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, mask == 1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_mask_keeps_large_values(tmp_path, mask, suffix):
    deep = mask.astype(np.uint16) * 1000
    Image.fromarray(deep).save(tmp_path / f"m{suffix}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"m{suffix}"), deep)
    labels = rule(3, {0: 0, 1000: 1, 2000: 2}).apply(deep, "m")
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, mask)


def test_signed_mask_with_negative_ignore_index(tmp_path):
    signed = np.array([[-1, 0, 1]], dtype=np.int32)
    Image.fromarray(signed).save(tmp_path / "m.tif")
    labels = rule(2, ignore_index=-1).apply(read_mask(tmp_path / "m.tif"), "m")
    assert labels.dtype == np.int16
    assert labels.tolist() == [[-1, 0, 1]]


def test_colour_mask_is_refused(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    with pytest.raises(DataError) as caught:
        read_mask(str(tmp_path / "m.png"))
    assert str(caught.value) == (
        f"{tmp_path}/m.png: mask has 3 channels (mode RGB); masks must hold one class index per "
        "pixel: set mask_colors to the classes' colours"
    )


def test_grey_mask_saved_as_colour_is_told_apart(tmp_path, mask):
    Image.fromarray(mask).convert("RGB").save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"all alike.*getchannel\(0\)"):
        read_mask(str(tmp_path / "m.png"))


def test_plain_labels_come_back_uncopied(mask):
    assert rule(3).apply(mask, "m") is mask
    assert rule().apply(mask, "m") is mask


def test_reduce_zero_label():
    assert apply([0, 1, 2, 255], num_classes=2, reduce_zero_label=True) == [255, 0, 1, 255]


def test_label_map_and_ignored_pixels():
    assert apply([0, 255], num_classes=2, label_map={0: 0, 255: 1}) == [0, 1]
    assert apply([7, 3, 255], num_classes=2, label_map={7: 0, 3: 1}) == [0, 1, 255]
    assert apply([7, 3], num_classes=1, label_map={7: 0, 3: 255}) == [0, 255]


def test_reduce_comes_before_the_map():
    labels = apply([0, 1, 2], num_classes=2, reduce_zero_label=True, label_map={0: 1, 1: 0})
    assert labels == [255, 1, 0]


@pytest.mark.parametrize(
    ("num_classes", "ignore_index", "dtype"),
    [(256, 255, np.uint8), (11, -100, np.int16), (300, 255, np.int16), (40000, 0, np.int32)],
)
def test_the_dtype_does_not_depend_on_the_mask(num_classes, ignore_index, dtype, mask):
    labels = rule(num_classes, ignore_index=ignore_index)
    assert labels.apply(mask, "m").dtype == dtype
    assert labels.apply(mask.astype(np.uint16), "m").dtype == dtype


def test_unlisted_value():
    with pytest.raises(DataError) as caught:
        apply([0, 7], num_classes=2, label_map={0: 0, 255: 1})
    assert str(caught.value) == (
        "m.png: mask holds the value 7, which label_map does not list (it lists 0, 255); "
        "add it, mapped to 255 if it does not count"
    )


@pytest.mark.parametrize(
    ("values", "num_classes", "path", "remedy"),
    [
        ([0, 1, 200], 11, "m.png", "add the class, or give a label_map"),
        ([0, 200], 2, "m.png", "set label_map={0: 0, 200: 1}"),
        ([1, 2, 3], 3, "m.png", "set reduce_zero_label=True"),
        ([0, 1, 200], 11, "m.jpg", "save masks as PNG"),
        (list(range(100)), 2, "m.png", "image instead of a mask"),
    ],
)
def test_labels_outside_the_classes(values, num_classes, path, remedy):
    wrong = next(v for v in values if v >= num_classes)
    with pytest.raises(DataError) as caught:
        rule(num_classes).apply(np.array([values], dtype=np.uint8), path)
    text = str(caught.value)
    start = f"{path}: mask holds the label {wrong}, but there are {num_classes} classes"
    assert text.startswith(f"{start} (0..{num_classes - 1}, and 255 to ignore); ")
    assert remedy in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("values", "rule", "never"),
    [
        ([1, 2], LabelRule(2, ignore_index=0), "reduce_zero_label"),
        ([7, 255], LabelRule(2), "set label_map"),
        (
            [1, 2, 3],
            LabelRule(3, reduce_zero_label=True, label_map=((0, 0), (1, 9))),
            "set reduce_zero",
        ),
        ([255, 255], LabelRule(2, label_map=((255, 7),)), "set reduce_zero"),
    ],
)
def test_a_hint_never_makes_classes_of_what_is_ignored(values, rule, never):
    with pytest.raises(DataError) as caught:
        rule.apply(np.array([values], np.uint8), "m.png")
    assert never not in str(caught.value)
