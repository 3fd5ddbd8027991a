"""ConcatImageVisualizer: several images of one sample side by side, frames of a clip one below the other."""

# SPDX-License-Identifier: Apache-2.0

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from segfast.errors import ConfigError
from segfast.registry import VISUALIZERS
from segfast.structures import BaseDataElement
from segfast.visualization.backend import build_backends

_GREY = 127


@VISUALIZERS.register_module()
class ConcatImageVisualizer:
    """Puts images of a sample, or of its `output`, in a row and hands the picture to the backends.

    Args:
        fn_key: field with a path; the file's name without its ending names the picture.
        img_keys: fields to draw, left to right: tensors (C, H, W) or (T, C, H, W), arrays (H, W, C), (T, H, W, C) or
            (H, W). uint8 is drawn as it is, everything else clipped to [0, 255].
        pixel_range: field -> (lowest, highest) value, scaled to [0, 255] unless the field is uint8.
        bgr2rgb: the images are BGR.
        name: kept for MMEngine's configs.
        vis_backends: configs or objects with `add_image` and `add_scalars`.
        save_dir: backends write into its subfolder vis_data (or into it, if that is its name).
        dataset_meta: kept for MMEngine's configs.
    """

    def __init__(
        self,
        fn_key: str,
        img_keys: str | Sequence[str],
        pixel_range: Mapping[str, tuple[float, float]] | None = None,
        bgr2rgb: bool = False,
        name: str = "visualizer",
        vis_backends: Sequence | None = None,
        save_dir: str | Path | None = None,
        dataset_meta: Mapping | None = None,
    ) -> None:
        """Build the backends.

        Raises:
            ConfigError: a backend cannot be built, for example without any `save_dir`.
        """
        self.fn_key, self.name, self.dataset_meta = fn_key, name, dataset_meta
        self.img_keys = [img_keys] if isinstance(img_keys, str) else list(img_keys)
        self.pixel_range, self.bgr2rgb = dict(pixel_range or {}), bgr2rgb
        self.vis_backends = build_backends(vis_backends, save_dir)

    def add_datasample(self, data_sample: BaseDataElement, step: int = 0) -> np.ndarray:
        """Draw one sample.

        Args:
            data_sample: fields of `output`, if it has that, win over its own.
            step: number of the picture.

        Returns:
            (H, W, 3) uint8: the images beside each other, lower ones filled up with grey.

        Raises:
            ConfigError: none of `img_keys` is there, or no `fn_key`.
        """
        fields = data_sample.to_dict()
        fields |= fields.get("output") or {}
        missing = [key for key in self.img_keys if key not in fields]
        if len(missing) == len(self.img_keys) or self.fn_key not in fields:
            wanted = "fn_key" if self.fn_key not in fields else "img_keys"
            known = ", ".join(sorted(fields))
            raise ConfigError(f"visualizer.{wanted}", f"not in the sample, which has {known}")
        if missing:
            warnings.warn(f"not in the sample, not drawn: {', '.join(missing)}", stacklevel=2)
        parts = [self._draw(key, fields[key]) for key in self.img_keys if key in fields]
        height = max(part.shape[0] for part in parts)
        parts = [
            np.pad(part, ((0, height - part.shape[0]), (0, 0), (0, 0)), constant_values=_GREY)
            for part in parts
        ]
        picture = np.concatenate(parts, axis=1)
        for backend in self.vis_backends:
            backend.add_image(_stem(fields[self.fn_key]), picture, step)
        return picture

    def add_scalars(self, scalars: Mapping[str, Any], step: int = 0) -> None:
        """Hand numbers to the backends."""
        for backend in self.vis_backends:
            backend.add_scalars(scalars, step)

    def close(self) -> None:
        """Close the backends."""
        for backend in self.vis_backends:
            backend.close()

    def _draw(self, key: str, image: Any) -> np.ndarray:
        """One field as (H, W, 3) uint8."""
        if isinstance(image, Mapping):  # PixelData
            image = image["data"]
        if isinstance(image, Tensor):
            array = image.detach().cpu().numpy()
            image = np.moveaxis(array, -3, -1) if array.ndim > 2 else array
        if image.ndim == 4:
            image = np.concatenate(image, axis=0)
        if image.ndim == 2:
            image = image[..., None]
        if image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
        if self.bgr2rgb:
            image = image[..., ::-1]
        if image.dtype == np.uint8:
            return image
        if key in self.pixel_range:
            low, high = self.pixel_range[key]
            image = (image - low) / (high - low) * 255
        return image.clip(0, 255).round().astype(np.uint8)


def _stem(path: Any) -> str:
    """A file's name up to its first dot; of several files the first one's."""
    path = path[0] if isinstance(path, list) else path
    return re.split(r" |/|\\", str(path))[-1].split(".")[0]
