"""PackSegInputs: the last step, from arrays to a tensor and a SegDataSample."""

# SPDX-License-Identifier: Apache-2.0
import warnings
from collections.abc import Sequence

import numpy as np
import torch

from segfast.datasets.transforms.base import BaseTransform, as_writable
from segfast.errors import ConfigError
from segfast.registry import TRANSFORMS
from segfast.structures import PixelData, SegDataSample

DEFAULT_META_KEYS = (
    "img_path",
    "seg_map_path",
    "ori_shape",
    "img_shape",
    "pad_shape",
    "scale_factor",
    "flip",
    "flip_direction",
    "reduce_zero_label",
)


@TRANSFORMS.register_module()
class PackSegInputs(BaseTransform):
    """Pack a sample as dict(inputs=(C, H, W) tensor, data_samples=SegDataSample).

    `inputs` keeps the image's dtype and, being a transposed view of the (H, W, C) array, its
    memory: nothing is copied here, and the model's data preprocessor reads such views directly.
    Labels keep their small dtype as well; (H, W) maps become (1, H, W).

    Args:
        meta_keys: results that become metainfo, where present.
        label_dtype: dtype of the labels, for example `int64`; None keeps theirs.
    """

    def __init__(
        self, meta_keys: Sequence[str] = DEFAULT_META_KEYS, label_dtype: str | None = None
    ) -> None:
        """Check the dtype's name."""
        self.meta_keys = meta_keys
        self.label_dtype = label_dtype
        if label_dtype not in (None, "uint8", "int16", "int32", "int64"):
            problem = f"expected uint8, int16, int32, int64 or None, got {label_dtype!r}"
            raise ConfigError("label_dtype", problem)

    def transform(self, results: dict) -> dict:
        """Pack what is there: without `img` there are no `inputs`."""
        packed: dict = {}
        if "img" in results:
            packed["inputs"] = image_to_tensor(results["img"])
        sample = SegDataSample()
        if results.get("gt_seg_map") is not None:
            sample.gt_sem_seg = self._pixel_data(results["gt_seg_map"], self.label_dtype)
        if results.get("gt_edge_map") is not None:
            sample.set_data({"gt_edge_map": self._pixel_data(results["gt_edge_map"], "int64")})
        if results.get("gt_depth_map") is not None:
            sample.set_data({"gt_depth_map": self._pixel_data(results["gt_depth_map"], None)})
        sample.set_metainfo({key: results[key] for key in self.meta_keys if key in results})
        packed["data_samples"] = sample
        return packed

    def _pixel_data(self, array: np.ndarray, dtype: str | None) -> PixelData:
        if dtype is not None:
            array = array.astype(dtype, copy=False)
        if array.ndim == 2:
            array = array[None]
        else:
            warnings.warn(
                f"expected a map (H, W), got {array.shape}; it is kept as it is",
                UserWarning,
                stacklevel=2,
            )
        return PixelData(data=torch.from_numpy(as_writable(array)))

    def __repr__(self) -> str:
        """The metainfo's names."""
        return f"{type(self).__name__}(meta_keys={self.meta_keys})"


def image_to_tensor(image: np.ndarray) -> torch.Tensor:
    """An image (H, W, C) or (H, W) as a (C, H, W) tensor over the same memory where possible."""
    tensor = torch.from_numpy(as_writable(image))
    return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
