"""Images and masks from files into the results dict."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

from segfast.datasets import LoadAnnotations, LoadImageFromFile, LoadImageFromNDArray
from segfast.datasets.images import image_size, read_image
from segfast.errors import ConfigError, DataError


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return str(path)


def test_colour_is_bgr_uint8_and_writable(tmp_path, colours):
    results = LoadImageFromFile()({"img_path": save(tmp_path / "a.png", colours)})
    np.testing.assert_array_equal(results["img"], colours[..., ::-1])
    assert results["img"].flags.c_contiguous
    assert results["img"].flags.writeable
    assert results["img_shape"] == results["ori_shape"] == (5, 7)


def test_grey_file_as_colour_and_colour_file_as_grey(tmp_path, colours):
    grey = save(tmp_path / "g.png", colours[..., 0])
    np.testing.assert_array_equal(read_image(grey), np.stack([colours[..., 0]] * 3, -1))
    colour = save(tmp_path / "c.png", colours)
    assert read_image(colour, "grayscale").shape == (5, 7)


def test_unchanged(tmp_path, colours):
    deep = colours[..., 0].astype(np.uint16) * 200
    np.testing.assert_array_equal(read_image(save(tmp_path / "d.png", deep), "unchanged"), deep)
    alpha = np.dstack([colours, colours[..., 0]])
    read = read_image(save(tmp_path / "a.png", alpha), "unchanged")
    np.testing.assert_array_equal(read, alpha[..., [2, 1, 0, 3]])
    assert read_image(str(tmp_path / "a.png")).shape == (5, 7, 3)


def test_to_float32(tmp_path, colours):
    results = LoadImageFromFile(to_float32=True)({"img_path": save(tmp_path / "a.png", colours)})
    assert results["img"].dtype == np.float32
    assert results["img"].max() > 1


def test_deep_image_as_colour_is_an_error(tmp_path):
    path = save(tmp_path / "d.png", np.full((4, 4), 4000, np.uint16))
    with pytest.raises(DataError, match=r"d\.png: has more than 8 bits .*color_type='unchanged'"):
        read_image(path)


def test_orientation_tag_turns_the_image(tmp_path, colours):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", colours, exif=exif)
    assert image_size(path) == (7, 5)
    turned = read_image(path)
    assert turned.shape == (7, 5, 3)
    np.testing.assert_array_equal(turned, np.rot90(colours[..., ::-1], -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif"])
def test_damaged_files_are_one_line(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    whole = (save(path, pixels) and path).read_bytes()
    for part in (b"", whole[:20], whole[: len(whole) // 2], b"\0" * 100):
        path.write_bytes(part)
        with pytest.raises(DataError) as caught:
            read_image(str(path))
        text = str(caught.value)
        assert text.startswith(f"{path}: corrupt or truncated")
        assert "\n" not in text


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"nope\.png: no such file"):
        read_image(f"{tmp_path}/nope.png")


def test_unknown_colour_type():
    with pytest.raises(ConfigError, match="color_type: expected one of color, grayscale"):
        LoadImageFromFile(color_type="colour")


def test_from_array(colours):
    results = LoadImageFromNDArray()({"img": colours})
    assert results["img"] is colours
    assert results["img_path"] is None
    assert results["ori_shape"] == (5, 7)


def test_annotations_outside_of_a_dataset(tmp_path, mask):
    path = save(tmp_path / "m.png", mask)
    results = LoadAnnotations(reduce_zero_label=True)({"seg_map_path": path})
    assert results["seg_fields"] == ["gt_seg_map"]
    np.testing.assert_array_equal(results["gt_seg_map"], np.array([255, 0, 1])[mask])
    with pytest.raises(ConfigError, match="reduce_zero_label: LoadAnnotations says True"):
        LoadAnnotations(True)({"seg_map_path": path, "reduce_zero_label": False})


def test_annotations_after_a_resize_compare_with_the_original_size(tmp_path, mask):
    path = save(tmp_path / "m.png", mask)
    results = {"seg_map_path": path, "ori_shape": (6, 8), "img_shape": (3, 4), "img_path": "i"}
    assert LoadAnnotations()(results)["gt_seg_map"].shape == (6, 8)
    results["ori_shape"] = (8, 6)
    with pytest.raises(DataError, match=r"mask is 8x6 but its image i is 6x8 \(width x height\)"):
        LoadAnnotations()(results)
