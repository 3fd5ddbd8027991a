"""Decode image files with Pillow into arrays; every failure becomes a DataError with the path."""

# SPDX-License-Identifier: Apache-2.0
import contextlib
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from segfast.errors import DataError

ColorType = Literal["color", "grayscale", "unchanged"]
COLOR_TYPES = ("color", "grayscale", "unchanged")

_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # more than 8 bits in a sample
_ORIENTATION_TAG = 0x0112
_BGR_LAYOUTS = {"RGB": ("BGR", 3), "RGBA": ("BGRA", 4)}


@contextlib.contextmanager
def open_image(path: str) -> Iterator[Image.Image]:
    """Open an image; what Pillow raises while the block decodes it names the file.

    Raises:
        DataError: no such file, or it is corrupt, truncated or of an unknown format.
    """
    try:
        with Image.open(path) as image:
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{path}: the image is too large to decode safely; cut it into tiles, "
            "or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except _DECODE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: corrupt or truncated, cannot be decoded as an image ({reason}); "
            "replace the file or take it out of the data set"
        ) from None


def image_size(path: str) -> tuple[int, int]:
    """Height and width after the camera's orientation tag, from the file's header only."""
    with open_image(path) as image:
        width, height = image.size
        turned = image.getexif().get(_ORIENTATION_TAG, 1) >= 5  # 5 to 8 swap the axes
    return (width, height) if turned else (height, width)


def read_image(path: str, color_type: ColorType = "color") -> np.ndarray:
    """Decode one image file.

    Args:
        path: the file.
        color_type: `color` gives (H, W, 3) uint8 in BGR order, `grayscale` (H, W) uint8, and
            `unchanged` what the file holds, channels in BGR(A) order. The first two turn the image
            as the camera's orientation tag says.

    Returns:
        A writable array.

    Raises:
        DataError: the file cannot be decoded, or has more than 8 bits per sample and
            `color_type` is not `unchanged`.
    """
    with open_image(path) as image:
        if color_type == "unchanged":
            return _as_array(image.convert() if image.mode in ("P", "PA") else image)
        if image.mode in _DEEP_MODES:
            raise DataError(
                f"{path}: has more than 8 bits per sample (mode {image.mode}); "
                "load it with color_type='unchanged'"
            )
        if image.getexif().get(_ORIENTATION_TAG, 1) != 1:
            image = ImageOps.exif_transpose(image)
        return _as_array(image.convert("RGB" if color_type == "color" else "L"))


def _as_array(image: Image.Image) -> np.ndarray:
    """The pixels; three or four channels come out as BGR(A), which costs nothing this way."""
    if image.mode not in _BGR_LAYOUTS:
        return np.array(image)
    layout, channels = _BGR_LAYOUTS[image.mode]
    pixels = np.frombuffer(image.tobytes("raw", layout), np.uint8)
    return pixels.reshape(image.height, image.width, channels).copy()
