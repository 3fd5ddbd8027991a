"""Resize images and their label maps: to a size, by a factor, or by a random ratio."""

# SPDX-License-Identifier: Apache-2.0
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from segfast.datasets.transforms.base import (
    BaseTransform,
    as_writable,
    describe,
    generator_of,
    seg_fields,
)
from segfast.errors import ConfigError
from segfast.registry import TRANSFORMS

INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
BACKENDS = ("cv2", "pillow")
_DIRECT_DTYPES = (np.uint8, np.float32, np.float64)  # the others go through float32


@TRANSFORMS.register_module()
class Resize(BaseTransform):
    """Resize `img` and every map of `seg_fields` (nearest); sets `img_shape`, `scale_factor`.

    The numbers are those of the library that `backend` names, which does not have to be there:
    `cv2`, what MMSegmentation's models were trained with, does not antialias, and its labels come
    from the pixel at floor(x * old / new). `pillow` averages over the pixels that fall together when
    shrinking, and takes labels at pixel centres, so that they stay on what the image shows.

    Args:
        scale: (width, height), or one int for both.
        scale_factor: factor, or (width, height) factors; instead of `scale`.
        keep_ratio: fit into `scale` (its longer side bounds the image's longer side, the shorter
            one the shorter) instead of reaching it exactly.
        clip_object_border: kept for MMCV's configs; there are no boxes here.
        backend: `cv2` or `pillow`.
        interpolation: `bilinear`, `bicubic` or `nearest`, for `img`.

    Raises:
        ConfigError: an argument is something else; the text names it.
    """

    def __init__(
        self,
        scale: int | tuple[int, int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        keep_ratio: bool = False,
        clip_object_border: bool = True,
        backend: str = "cv2",
        interpolation: str = "bilinear",
    ) -> None:
        """Check that one of both sizes is given, and the names."""
        if (scale is None) == (scale_factor is None):
            raise ConfigError("scale", "give either scale=(width, height) or scale_factor")
        if interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ConfigError("interpolation", f"expected one of {known}, got {interpolation!r}")
        if backend not in BACKENDS:
            raise ConfigError("backend", f"expected 'cv2' or 'pillow', got {backend!r}")
        self.scale = None if scale is None else pair_of_ints("scale", scale)
        self.scale_factor = scale_factor
        self.keep_ratio = keep_ratio
        self.clip_object_border = clip_object_border
        self.backend = backend
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        """Resize everything."""
        height, width = results["img"].shape[:2]
        if self.scale is not None:
            scale = self.scale
        else:
            factor = self.scale_factor
            factors = factor if isinstance(factor, tuple | list) else (factor, factor)
            scale = (int(width * factors[0] + 0.5), int(height * factors[1] + 0.5))
        return resize_to(results, scale, self.keep_ratio, self.interpolation, self.backend)

    def __repr__(self) -> str:
        """The arguments."""
        names = ("scale", "scale_factor", "keep_ratio", "clip_object_border", "backend")
        return describe(self, *names, "interpolation")


@TRANSFORMS.register_module()
class RandomResize(BaseTransform):
    """Resize to a random size.

    Args:
        scale: (width, height) to be multiplied by a random ratio; without `ratio_range` a pair of
            sizes [(w, h), (w, h)] between which width and height are drawn.
        ratio_range: (low, high) of the ratio, drawn uniformly.
        keep_ratio: as in `Resize`.
        resize_type: the transform that resizes, a subclass of `BaseTransform`.
        **resize_kwargs: further arguments of that transform.
    """

    def __init__(
        self,
        scale: tuple,
        ratio_range: tuple[float, float] | None = None,
        resize_type: str = "Resize",
        keep_ratio: bool = False,
        **resize_kwargs: Any,
    ) -> None:
        """Build the transform once to check its arguments."""
        is_pair_of_sizes = not isinstance(scale, int) and isinstance(scale[0], tuple | list)
        if is_pair_of_sizes == (ratio_range is not None):
            raise ConfigError(
                "ratio_range",
                "give scale=(width, height) with ratio_range=(low, high), "
                "or two sizes scale=[(w, h), (w, h)] without",
            )
        self.scale = scale if is_pair_of_sizes else pair_of_ints("scale", scale)
        self.ratio_range = ratio_range
        self.keep_ratio = keep_ratio
        kind = TRANSFORMS.get(resize_type) if isinstance(resize_type, str) else resize_type
        if not (isinstance(kind, type) and issubclass(kind, BaseTransform)):
            raise ConfigError("resize_type", f"expected a transform, got {resize_type!r}")
        self.resize = dict(type=resize_type, keep_ratio=keep_ratio, **resize_kwargs)
        self._build((1, 1))

    def _build(self, scale: tuple[int, int]) -> Any:
        return TRANSFORMS.build({**self.resize, "scale": scale})

    def transform(self, results: dict) -> dict:
        """Draw the size and resize."""
        rng = generator_of(results)
        if self.ratio_range is not None:
            ratio = rng.uniform(*self.ratio_range)
            width, height = (int(side * ratio) for side in self.scale)
        else:
            (w0, h0), (w1, h1) = self.scale
            width = int(rng.integers(min(w0, w1), max(w0, w1) + 1))
            height = int(rng.integers(min(h0, h1), max(h0, h1) + 1))
        return self._build((max(width, 1), max(height, 1)))(results)

    def __repr__(self) -> str:
        """The arguments."""
        return describe(self, "scale", "ratio_range", "keep_ratio", "resize")


def pair_of_ints(name: str, value: Any) -> tuple[int, int]:
    """An int as a pair, or the pair itself.

    Raises:
        ConfigError: anything but one or two positive ints.
    """
    pair = (value, value) if isinstance(value, int) else value
    is_pair = isinstance(pair, tuple | list) and len(pair) == 2
    if not is_pair or not all(isinstance(side, int) and side > 0 for side in pair):
        raise ConfigError(name, f"expected one or two positive ints, got {value!r}")
    return tuple(pair)


def resize_to(
    results: dict,
    scale: tuple[int, int],
    keep_ratio: bool,
    interpolation: str = "bilinear",
    backend: str = "cv2",
) -> dict:
    """Resize the image and the maps in `results` to `scale` (width, height)."""
    height, width = results["img"].shape[:2]
    new_width, new_height = scale
    if keep_ratio:
        long, short = max(height, width), min(height, width)
        factor = min(max(scale) / long, min(scale) / short)
        new_width, new_height = int(width * factor + 0.5), int(height * factor + 0.5)
    new_size = max(new_height, 1), max(new_width, 1)
    results["img"] = resize_image(results["img"], new_size, interpolation, backend)
    for name in seg_fields(results):
        results[name] = resize_nearest(results[name], new_size, backend)
    results["img_shape"] = new_size
    results["scale"] = scale
    results["scale_factor"] = (new_size[1] / width, new_size[0] / height)
    results["keep_ratio"] = keep_ratio
    return results


def resize_image(
    image: np.ndarray,
    size: tuple[int, int],
    interpolation: str = "bilinear",
    backend: str = "cv2",
) -> np.ndarray:
    """Resize an image.

    Args:
        image: (H, W) or (H, W, C), any integer or float dtype.
        size: (height, width) to reach.
        interpolation: `bilinear`, `bicubic` or `nearest`.
        backend: `cv2`, or `pillow`, which antialiases.

    Returns:
        The resized image, same layout and dtype; integers are rounded.
    """
    if image.shape[:2] == tuple(size):
        return image
    if interpolation == "nearest":
        return resize_nearest(image, size, backend)
    antialias = backend == "pillow"
    # OpenCV rounds once, behind both passes of a cubic that overshoots; torch's bytes do between.
    through_float = image.dtype not in _DIRECT_DTYPES or (
        image.dtype == np.uint8 and interpolation == "bicubic" and not antialias
    )
    values = image.astype(np.float32) if through_float else image
    channels_last = torch.from_numpy(as_writable(values)).reshape(1, *image.shape[:2], -1)
    # A channels_last view: torch resizes interleaved bytes with vector instructions, in place.
    resized = functional.interpolate(
        channels_last.permute(0, 3, 1, 2), size=size, mode=interpolation, antialias=antialias
    )
    array = resized[0].permute(1, 2, 0).numpy().reshape(*size, *image.shape[2:])
    if array.dtype == image.dtype:
        return array
    limits = np.iinfo(image.dtype)
    return np.clip(np.rint(array), limits.min, limits.max).astype(image.dtype)


def resize_nearest(array: np.ndarray, size: tuple[int, int], backend: str = "cv2") -> np.ndarray:
    """Take one pixel for each: at floor(x * old / new), or, `pillow`, at the new pixel's centre.

    Args:
        array: (H, W, ...).
        size: (height, width) to reach.
        backend: `cv2` or `pillow`.

    Returns:
        (height, width, ...), same dtype.
    """
    if array.shape[:2] == tuple(size):
        return array
    shift = 0.5 if backend == "pillow" else 0.0
    rows, columns = (
        # 1 / (new / old) is not old / new in floating point: OpenCV's order, bit for bit.
        ((np.arange(new) + shift) * (1 / (new / old))).astype(np.intp).clip(max=old - 1)
        for new, old in zip(size, array.shape, strict=False)
    )
    return array.take(rows, axis=0).take(columns, axis=1)
