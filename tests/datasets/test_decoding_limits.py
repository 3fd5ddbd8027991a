"""Files that were made to hurt: bombs, wrong kinds, empty and truncated files are one line each."""

# SPDX-License-Identifier: Apache-2.0
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segfast.datasets.images import (
    MAX_PIXELS_VARIABLE,
    image_size,
    open_image,
    read_image,
    read_picture,
)
from segfast.datasets.labels import read_mask
from segfast.errors import ConfigError, DataError


def png_bomb(path, side):
    """A valid PNG of side x side zeros, 1 bit each: a few kilobytes that declare side^2 pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    squeeze = zlib.compressobj(9)
    rows = b"".join(squeeze.compress(bytes(1 + side // 8)) for _ in range(64)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def tiff_bomb(path, side):
    """A TIFF header that declares side x side bytes in one deflated strip."""
    data = zlib.compress(bytes(1000))
    entries = [
        (256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 200),
        (277, 3, 1), (278, 4, side), (279, 4, len(data)),
    ]  # fmt: skip
    body = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    body += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    path.write_bytes((body + struct.pack("<I", 0)).ljust(200, b"\0") + data)
    return path


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("read", [read_image, read_mask, image_size, read_picture])
@pytest.mark.parametrize("bomb", [png_bomb, tiff_bomb])
@pytest.mark.parametrize("side", [13_400, 60_000])
def test_bombs_are_refused_before_they_are_decoded(tmp_path, read, bomb, side, monkeypatch):
    path = bomb(tmp_path / "bomb.png", side)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"bomb\.png: .*limit of 178956970 pixels.*=N") as caught:
        read(str(path))
    assert "\n" not in str(caught.value)
    assert MAX_PIXELS_VARIABLE in str(caught.value)


def test_the_limit_can_be_raised_and_lowered(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    path = png_bomb(tmp_path / "big.png", 20_000)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "400000000")
    assert image_size(path) == (20_000, 20_000)
    Image.new("L", (8, 8)).save(tmp_path / "small.png")
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "63")
    with pytest.raises(DataError, match="is 8x8, more than the limit of 63 pixels"):
        read_image(tmp_path / "small.png")
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "many")
    with pytest.raises(ConfigError, match="SEGFAST_MAX_PIXELS: expected a number"):
        read_image(tmp_path / "small.png")


def test_only_decoders_of_pixels_are_tried(tmp_path):
    """Pillow hands EPS to Ghostscript, whatever the file is called."""
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with Image.open(path) as image:
        assert image.format == "EPS"
    with pytest.raises(DataError, match="none of JPEG, PNG"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_an_empty_file_says_so(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=rf"{name}: corrupt or truncated, the file is empty \(0 b"):
        read_image(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="no regular file"):
        read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="no regular file"):
        read_image(tmp_path)


def test_what_a_decoder_stumbles_over_is_one_line(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    for failure in (KeyError("x"), OverflowError(), MemoryError(), RecursionError("deep\nly")):
        with (
            pytest.raises(DataError, match=r"a\.png: corrupt or truncated") as caught,
            open_image(tmp_path / "a.png"),
        ):
            raise failure
        assert "\n" not in str(caught.value)


def test_many_channels_are_refused_rather_than_one_read(tmp_path):
    """Pillow reads the first band of a planar TIFF as if there were no other."""
    pixels = np.arange(16, dtype=np.int16)
    entries = [
        (256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 13, 300), (259, 3, 1, 8), (262, 3, 1, 1),
        (273, 4, 13, 420), (277, 3, 1, 13), (278, 3, 1, 4), (279, 4, 13, 500), (284, 3, 1, 2),
        (338, 3, 12, 380), (339, 3, 13, 340),
    ]  # fmt: skip
    body = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    body += b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", 0)
    body = body.ljust(300, b"\0") + struct.pack("<13H", *[16] * 13)
    body = body.ljust(340, b"\0") + struct.pack("<13H", *[2] * 13)
    body = body.ljust(380, b"\0") + bytes(24)
    body = body.ljust(420, b"\0") + struct.pack("<13I", *[600 + 32 * k for k in range(13)])
    body = body.ljust(500, b"\0") + struct.pack("<13I", *[32] * 13)
    (tmp_path / "a.tif").write_bytes(body.ljust(600, b"\0") + pixels.tobytes() * 13)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.mode == "I"
    with pytest.raises(DataError, match=r"a\.tif: has 13 channels, at most 4"):
        read_image(tmp_path / "a.tif", "unchanged")


def test_deep_masks_and_images_still_load(tmp_path):
    deep = np.arange(300, 364, dtype=np.uint16).reshape(8, 8)
    signed = deep.astype(np.int32) - 301
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(signed).save(tmp_path / "signed.tif")
    for name in ("deep.tif", "deep.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name, "unchanged"), deep)
        np.testing.assert_array_equal(read_mask(tmp_path / name), deep)
        assert read_picture(tmp_path / name).shape == (8, 8, 3)
    np.testing.assert_array_equal(read_mask(tmp_path / "signed.tif"), signed)


def test_of_several_pages_the_first_is_read(tmp_path):
    pages = [Image.new("L", (4, 4), value) for value in (1, 2, 3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert read_mask(tmp_path / "a.tif").max() == 1
