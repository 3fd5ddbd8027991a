"""Random changes of brightness, contrast, saturation and hue."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
from PIL import Image

from segfast.datasets.transforms.base import BaseTransform, describe, generator_of
from segfast.errors import DataError
from segfast.registry import TRANSFORMS

_LEVELS = np.arange(256, dtype=np.float32)
_HUE_STEPS = 180  # hue_delta counts half degrees, as hue in eight bits usually does


@TRANSFORMS.register_module()
class PhotoMetricDistortion(BaseTransform):
    """Change the colours of `img` (H, W, 3) uint8 BGR, each step with probability one half.

    Brightness comes first; contrast follows it or comes last, at random; saturation, then hue, in
    between. Every step clips to [0, 255] and truncates to uint8.

    Args:
        brightness_delta: largest value added or taken away.
        contrast_range: (low, high) of the factor on all values.
        saturation_range: (low, high) of the factor on the saturation.
        hue_delta: largest turn of the hue, in steps of two degrees.
    """

    def __init__(
        self,
        brightness_delta: int = 32,
        contrast_range: tuple[float, float] = (0.5, 1.5),
        saturation_range: tuple[float, float] = (0.5, 1.5),
        hue_delta: int = 18,
    ) -> None:
        """Keep the ranges."""
        self.brightness_delta = brightness_delta
        self.contrast_range = contrast_range
        self.saturation_range = saturation_range
        self.hue_delta = hue_delta

    def transform(self, results: dict) -> dict:
        """Draw the steps and apply them.

        Raises:
            DataError: the image is not (H, W, 3) uint8.
        """
        image, rng = results["img"], generator_of(results)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(
                f"{results.get('img_path')}: PhotoMetricDistortion needs (H, W, 3) uint8, got "
                f"{image.shape} {image.dtype}; load with color_type='color', to_float32=False"
            )
        table = _LEVELS.astype(np.uint8)
        if rng.random() < 0.5:
            table = _truncate(table + rng.uniform(-self.brightness_delta, self.brightness_delta))
        contrast = rng.uniform(*self.contrast_range) if rng.random() < 0.5 else 1.0
        contrast_first = rng.random() < 0.5
        if contrast_first:
            table = _truncate(table * contrast)
        image = np.take(table, image)
        if rng.random() < 0.5:
            image = scale_saturation(image, rng.uniform(*self.saturation_range))
        if rng.random() < 0.5:
            image = turn_hue(
                image, int(rng.integers(-self.hue_delta, self.hue_delta, endpoint=True))
            )
        if not contrast_first and contrast != 1.0:
            image = np.take(_truncate(_LEVELS * contrast), image)
        results["img"] = image
        return results

    def __repr__(self) -> str:
        """The arguments."""
        return describe(self, "brightness_delta", "contrast_range", "saturation_range", "hue_delta")


def _truncate(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def scale_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the HSV saturation, at most up to 1; hue and value stay.

    With V the largest channel and m the smallest, S = (V - m) / V, and scaling S by f moves every
    channel c to V - (V - c) * f: no trip through HSV is needed.

    Args:
        image: (H, W, 3) uint8.
        factor: f, limited per pixel to V / (V - m).

    Returns:
        (H, W, 3) uint8.
    """
    channels = [image[..., k].astype(np.float32) for k in range(3)]
    value = np.maximum(np.maximum(channels[0], channels[1]), channels[2])
    spread = value - np.minimum(np.minimum(channels[0], channels[1]), channels[2])
    scale = np.minimum(np.float32(factor), value / np.maximum(spread, 1))
    # Half a level is added because the formula meets integers exactly, up to rounding below them.
    return np.stack([(value - (value - c) * scale + 0.5).astype(np.uint8) for c in channels], -1)


def turn_hue(image: np.ndarray, steps: int) -> np.ndarray:
    """Turn the HSV hue.

    Args:
        image: (H, W, 3) uint8 BGR.
        steps: turn in steps of two degrees, towards green from red.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    # Pillow takes the bytes as RGB; with red and blue exchanged the hue circle runs backwards.
    shift = round(-steps * 256 / _HUE_STEPS)
    hue = [(level + shift) % 256 for level in range(256)]
    same = list(range(256))
    hsv = Image.fromarray(np.ascontiguousarray(image)).convert("HSV")
    return np.array(hsv.point(hue + same + same).convert("RGB"))
