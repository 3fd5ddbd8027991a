"""Load images and label masks from files into the results dict."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np

from segfast.datasets.arguments import checked_backend, checked_decoder
from segfast.datasets.images import COLOR_TYPES, ColorType, read_image
from segfast.datasets.labels import LabelRule, read_mask
from segfast.datasets.skips import note_skip
from segfast.datasets.transforms.base import BaseTransform, describe
from segfast.errors import ConfigError, DataError
from segfast.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImageFromFile(BaseTransform):
    """Read `img_path`; sets `img`, `img_shape` and `ori_shape` (H, W).

    Args:
        to_float32: convert to float32, values unchanged.
        color_type: `color` (H, W, 3) uint8 BGR, `grayscale` (H, W) uint8, or `unchanged`.
        imdecode_backend: kept for MMCV's configs, Pillow decodes; cv2, pillow, turbojpeg or tifffile.
        file_client_args: the older name of `backend_args`.
        ignore_empty: a file that cannot be read rejects the sample, which training replaces by
            another one; what was replaced is counted and logged.
        backend_args: kept for MMEngine's configs; None or dict(backend="local").
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: ColorType = "color",
        imdecode_backend: str | None = "cv2",
        file_client_args: dict | None = None,
        ignore_empty: bool = False,
        *,
        backend_args: dict | None = None,
    ) -> None:
        """Check the colour type, the decoder's name and that files are local.

        Raises:
            ConfigError: one of them is something else.
        """
        if color_type not in COLOR_TYPES:
            raise ConfigError(
                "color_type", f"expected one of {', '.join(COLOR_TYPES)}, got {color_type!r}"
            )
        if file_client_args is not None and backend_args is not None:
            raise ConfigError("file_client_args", "is the older name of backend_args, give one")
        self.to_float32 = to_float32
        self.color_type = color_type
        self.imdecode_backend = checked_decoder(imdecode_backend)
        self.file_client_args = checked_backend(file_client_args, "file_client_args")
        self.ignore_empty = ignore_empty
        self.backend_args = checked_backend(backend_args)

    def transform(self, results: dict) -> dict | None:
        """Read the file.

        Raises:
            DataError: the file cannot be decoded, and `ignore_empty` is False.
        """
        try:
            image = read_image(results["img_path"], self.color_type)
        except DataError as error:
            if not self.ignore_empty:
                raise
            note_skip(error)
            return None
        return self._set(results, image)

    def _set(self, results: dict, image: np.ndarray) -> dict:
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        """The arguments."""
        names = ("ignore_empty", "to_float32", "color_type", "imdecode_backend", "backend_args")
        return describe(self, *names)


@TRANSFORMS.register_module()
class LoadImageFromNDArray(LoadImageFromFile):
    """Take `img`, an array (H, W, 3) BGR or (H, W), instead of reading a file."""

    def transform(self, results: dict) -> dict:
        """Set what `LoadImageFromFile` sets, and `img_path` to None."""
        results["img_path"] = None
        return self._set(results, results["img"])


@TRANSFORMS.register_module()
class LoadAnnotations(BaseTransform):
    """Read `seg_map_path` as class indices; sets `gt_seg_map` and adds it to `seg_fields`.

    Labels are read, reduced, mapped and checked as the dataset says (`mask_colors`,
    `reduce_zero_label`, `label_map`, `num_classes`, `ignore_index` of the results). `gt_seg_map`
    (H, W) is uint8 unless a label or the ignore index does not fit.

    Args:
        reduce_zero_label: only for use outside of a dataset; None takes the dataset's value.
        backend_args: kept for MMEngine's configs; None or dict(backend="local").
        imdecode_backend: kept for MMCV's configs, Pillow decodes; cv2, pillow, turbojpeg or tifffile.
    """

    def __init__(
        self,
        reduce_zero_label: bool | None = None,
        backend_args: dict | None = None,
        imdecode_backend: str | None = "pillow",
    ) -> None:
        """Check the decoder's name and that files are local.

        Raises:
            ConfigError: one of them is something else.
        """
        self.reduce_zero_label = reduce_zero_label
        self.backend_args = checked_backend(backend_args)
        self.imdecode_backend = checked_decoder(imdecode_backend)

    def transform(self, results: dict) -> dict:
        """Read the mask.

        Raises:
            DataError: it cannot be decoded, holds colours or a wrong label, is of another size
                than the image, or the dataset has no masks.
            ConfigError: `reduce_zero_label` contradicts the dataset's.
        """
        path = results.get("seg_map_path")
        if path is None:
            raise DataError(
                f"{results.get('img_path')}: LoadAnnotations needs a mask, but the dataset has "
                "no mask folder; set data_prefix.seg_map_path"
            )
        if self.reduce_zero_label is not None:
            own = results.setdefault("reduce_zero_label", self.reduce_zero_label)
            if bool(own) != self.reduce_zero_label:
                raise ConfigError(
                    "reduce_zero_label",
                    f"LoadAnnotations says {self.reduce_zero_label}, the dataset {own}; "
                    "set it on the dataset only",
                )
        mask = read_mask(path, results.get("mask_colors"))
        check_same_size(path, mask.shape, results.get("img_path"), results.get("ori_shape"))
        results["gt_seg_map"] = LabelRule.from_info(results).apply(mask, path)
        results.setdefault("seg_fields", []).append("gt_seg_map")
        return results

    def __repr__(self) -> str:
        """The arguments."""
        return describe(self, "reduce_zero_label", "imdecode_backend", "backend_args")


def check_same_size(
    mask_path: str,
    mask_size: tuple[int, ...],
    image_path: str | None,
    image_size: tuple[int, ...] | None,
) -> None:
    """Refuse a mask whose (H, W) is not its image's.

    Raises:
        DataError: the sizes differ; the text has both, as width x height.
    """
    if image_size is None or tuple(mask_size) == tuple(image_size[:2]):
        return
    raise DataError(
        f"{mask_path}: mask is {mask_size[1]}x{mask_size[0]} but its image {image_path} is "
        f"{image_size[1]}x{image_size[0]} (width x height); both must have one size"
    )
