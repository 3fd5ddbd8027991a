"""Decode image files with Pillow into arrays, within limits; every failure becomes a DataError with the path."""

# SPDX-License-Identifier: Apache-2.0
import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from segfast.errors import ConfigError, DataError

ColorType = Literal["color", "grayscale", "unchanged"]
COLOR_TYPES = ("color", "grayscale", "unchanged")
MAX_PIXELS = 178_956_970  # a gigabyte or two in memory; Pillow's own threshold, too
MAX_PIXELS_VARIABLE = "SEGFAST_MAX_PIXELS"

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong stands in our errors

# Decoders of pixels only. Pillow would also open EPS and WMF, for which it starts other programs.
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "JPEG2000", "PPM")
_MAX_CHANNELS = 4
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # more than 8 bits in a sample
_ORIENTATION_TAG = 0x0112
_SAMPLES_TAG = 0x0115
_BGR_LAYOUTS = {"RGB": ("BGR", 3), "RGBA": ("BGRA", 4)}


def max_pixels() -> int:
    """How many pixels (H times W) an image may declare before anything of it is decoded.

    178,956,970, or what the environment variable SEGFAST_MAX_PIXELS says, which worker processes
    inherit.

    Raises:
        ConfigError: the variable is no positive whole number.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE)
    if text is None:
        return MAX_PIXELS
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(MAX_PIXELS_VARIABLE, f"expected a number of pixels, got {text!r}")
    return int(text)


@contextlib.contextmanager
def open_image(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Open an image; what Pillow raises while the block decodes it names the file.

    The declared size is checked before anything is decoded, and only decoders of pixels are tried.

    Raises:
        DataError: no such file, or it is corrupt, truncated, too large or of an unknown format.
    """
    _check_file(path)
    try:
        with _open_within(path, max_pixels()) as image:
            _check_channels(path, image)
            yield image
    except (DataError, ConfigError):
        raise
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"none of {', '.join(_FORMATS)}, or of too many channels"
        raise DataError(
            f"{path}: corrupt or truncated, cannot be decoded as an image ({reason}); "
            "replace the file or take it out of the data set"
        ) from None


def _check_file(path: str | os.PathLike) -> None:
    """Refuse what is no file (a pipe would wait for ever), and the empty file that a full disk leaves."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        missing = isinstance(error, FileNotFoundError)
        raise DataError(f"{path}: {'no such file' if missing else reason}") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: no regular file, cannot be decoded as an image")
    if status.st_size == 0:
        raise DataError(
            f"{path}: corrupt or truncated, the file is empty (0 bytes); "
            "replace the file or take it out of the data set"
        )


def _open_within(path: str | os.PathLike, limit: int) -> Image.Image:
    """Read the header, and refuse more than `limit` pixels."""
    if limit > MAX_PIXELS and Image.MAX_IMAGE_PIXELS is not None:
        # Pillow has a limit of its own, for the whole process; ours was raised on purpose.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, limit)
    try:
        image = Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError:
        raise _too_large(path, "declares more", limit) from None
    width, height = image.size
    if width * height > limit:
        image.close()
        raise _too_large(path, f"is {width}x{height}, more", limit)
    return image


def _too_large(path: str | os.PathLike, what: str, limit: int) -> DataError:
    return DataError(
        f"{path}: {what} than the limit of {limit} pixels, which keeps a small file from filling the "
        f"memory; cut it into tiles, or raise the limit: {MAX_PIXELS_VARIABLE}=N in the environment, "
        "or env_cfg.max_pixels=N"
    )


def _check_channels(path: str | os.PathLike, image: Image.Image) -> None:
    """Pillow takes one of many bands of a TIFF and says nothing."""
    samples = getattr(image, "tag_v2", {}).get(_SAMPLES_TAG, 1)
    if isinstance(samples, int) and samples > _MAX_CHANNELS:
        raise DataError(
            f"{path}: has {samples} channels, at most {_MAX_CHANNELS} can be decoded; split it into "
            "files of up to 4 channels, or load it with a transform of your own"
        )


def orientation_of(image: Image.Image) -> int:
    """The camera's orientation tag: 1 upright, 2 to 4 mirrored or upside down, 5 to 8 on its side."""
    value = image.getexif().get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def sample_bits(image: Image.Image) -> int:
    """Bits of a sample as the file says, which Pillow cuts to 8 where there are several channels."""
    tiles: Any = getattr(image, "tile", None)
    layout = tiles[0][3] if tiles else ""
    parts = layout if isinstance(layout, tuple) else (layout,)
    deep = any(isinstance(part, str) and ";16" in part for part in parts)
    if image.format == "PPM":
        deep |= any(isinstance(part, int) and part > 255 for part in parts)
    return 16 if deep else 8


def lossy_format(path: str | os.PathLike) -> str | None:
    """The name of the file's format if that keeps pixels only roughly, which is no good for labels."""
    with open_image(path) as image:
        kind = image.format
    if kind == "WEBP":
        with open(path, "rb") as file:
            return None if b"VP8L" in file.read(4096) else "lossy WebP"
    return {"JPEG": "JPEG", "MPO": "JPEG", "JPEG2000": "JPEG 2000"}.get(kind or "")


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width after the camera's orientation tag, from the file's header only."""
    with open_image(path) as image:
        width, height = image.size
        turned = orientation_of(image) >= 5  # these swap the axes
    return (width, height) if turned else (height, width)


def read_image(path: str | os.PathLike, color_type: ColorType = "color") -> np.ndarray:
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
        if orientation_of(image) != 1:
            image = ImageOps.exif_transpose(image)
        return _as_array(image.convert("RGB" if color_type == "color" else "L"))


def read_picture(path: str | os.PathLike, upright: bool = True) -> np.ndarray:
    """Decode an image of any depth for the eye: (H, W, 3) uint8 RGB, deep samples stretched.

    Args:
        path: the file.
        upright: turn it as the camera's orientation tag says, as `read_image` does but for `unchanged`.
    """
    with open_image(path) as image:
        deep = image.mode in _DEEP_MODES
        if not deep and not upright:
            return np.array(image.convert("RGB"))
    if not deep:
        return read_image(path)[..., ::-1]
    grey = read_image(path, "unchanged").astype(np.float64)
    low, high = np.percentile(grey, (1, 99))
    grey = np.clip((grey - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _as_array(image: Image.Image) -> np.ndarray:
    """The pixels; three or four channels come out as BGR(A), which costs nothing this way."""
    if image.mode not in _BGR_LAYOUTS:
        return np.array(image)
    layout, channels = _BGR_LAYOUTS[image.mode]
    pixels = np.frombuffer(image.tobytes("raw", layout), np.uint8)
    return pixels.reshape(image.height, image.width, channels).copy()
