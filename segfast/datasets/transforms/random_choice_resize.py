"""RandomChoiceResize: one of several sizes, drawn for each sample."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

from segfast.datasets.transforms.base import BaseTransform, describe, generator_of
from segfast.errors import ConfigError
from segfast.registry import TRANSFORMS

Size = int | tuple[int, int]


@TRANSFORMS.register_module()
class RandomChoiceResize(BaseTransform):
    """Resize to one of several sizes, all equally likely; sets `scale_idx` and what `Resize` sets.

    Args:
        scales: a list of sizes, each (width, height) or one int for both; or a single one.
        resize_type: the transform that resizes, a subclass of `BaseTransform`; it takes `scale`.
        **resize_kwargs: further arguments of that transform.

    Raises:
        ConfigError: `scales` is empty, or the transform refuses a size or an argument.
    """

    def __init__(
        self, scales: Sequence[Size] | Size, resize_type: str = "Resize", **resize_kwargs: Any
    ) -> None:
        """Build a transform for each size."""
        self.scales = scales if isinstance(scales, list) else [scales]
        if not self.scales:
            raise ConfigError("scales", "expected at least one size, (width, height) or one int")
        kind = TRANSFORMS.get(resize_type) if isinstance(resize_type, str) else resize_type
        if not (isinstance(kind, type) and issubclass(kind, BaseTransform)):
            raise ConfigError("resize_type", f"expected a transform, got {resize_type!r}")
        self.resize_cfg = dict(type=resize_type, **resize_kwargs)
        self._resizes = [
            TRANSFORMS.build({**self.resize_cfg, "scale": scale}) for scale in self.scales
        ]

    def transform(self, results: dict) -> dict:
        """Draw the size and resize."""
        place = int(generator_of(results).integers(len(self._resizes)))
        resized = self._resizes[place](results)
        resized["scale_idx"] = place
        return resized

    def __repr__(self) -> str:
        """The arguments."""
        return describe(self, "scales", "resize_cfg")
