"""ResizeToMultiple: both sides up to a multiple of a number."""

# SPDX-License-Identifier: Apache-2.0
from segfast.datasets.transforms.base import BaseTransform, describe, seg_fields
from segfast.datasets.transforms.resize import (
    INTERPOLATIONS,
    pair_of_ints,
    resize_image,
    resize_nearest,
)
from segfast.errors import ConfigError
from segfast.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ResizeToMultiple(BaseTransform):
    """Enlarge `img` and every map to the next multiple; sets `img_shape` and `pad_shape`.

    Args:
        size_divisor: (width, height) become multiples of these, or both of one int.
        interpolation: of `img`: `bilinear` (also None), `bicubic` or `nearest`.
    """

    def __init__(
        self, size_divisor: int | tuple[int, int] = 32, interpolation: str | None = None
    ) -> None:
        """Check both."""
        if interpolation not in (None, *INTERPOLATIONS):
            known = ", ".join(INTERPOLATIONS)
            raise ConfigError("interpolation", f"expected one of {known}, got {interpolation!r}")
        self.size_divisor = size_divisor
        self.interpolation = interpolation
        self._divisors = pair_of_ints("size_divisor", size_divisor)[::-1]

    def transform(self, results: dict) -> dict:
        """Resize everything."""
        height, width = (
            -(-side // divisor) * divisor
            for side, divisor in zip(results["img"].shape, self._divisors, strict=False)
        )
        interpolation = self.interpolation or "bilinear"
        results["img"] = resize_image(results["img"], (height, width), interpolation)
        for name in seg_fields(results):
            results[name] = resize_nearest(results[name], (height, width))
        results["img_shape"] = results["pad_shape"] = (height, width)
        return results

    def __repr__(self) -> str:
        """The arguments."""
        return describe(self, "size_divisor", "interpolation")
