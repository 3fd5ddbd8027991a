"""PascalVOCDataset: 20 classes of things, and the background."""

# SPDX-License-Identifier: Apache-2.0
from typing import Any, ClassVar

from segfast.datasets.base import BaseSegDataset
from segfast.datasets.folder import Suffixes
from segfast.registry import DATASETS

# fmt: off
_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)
_PALETTE = [
    [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128],
    [128, 128, 128], [64, 0, 0], [192, 0, 0], [64, 128, 0], [192, 128, 0], [64, 0, 128],
    [192, 0, 128], [64, 128, 128], [192, 128, 128], [0, 64, 0], [128, 64, 0], [0, 192, 0],
    [128, 192, 0], [0, 64, 128],
]
# fmt: on


@DATASETS.register_module()
class PascalVOCDataset(BaseSegDataset):
    """Pascal VOC 2012: `JPEGImages` and `SegmentationClass`, whose border pixels are 255.

    Args:
        ann_file: the split, such as `ImageSets/Segmentation/train.txt`: most images have no mask.
        img_suffix: ending of image files.
        seg_map_suffix: ending of mask files.
        **kwargs: of `BaseSegDataset`.
    """

    METAINFO: ClassVar[dict] = {"classes": _CLASSES, "palette": _PALETTE}
    ALIASES: ClassVar[tuple[str, ...]] = ("voc", "voc12", "voc12aug")

    def __init__(
        self,
        ann_file: str,
        img_suffix: Suffixes = ".jpg",
        seg_map_suffix: Suffixes = ".png",
        **kwargs: Any,
    ) -> None:
        """Name the endings."""
        super().__init__(
            ann_file=ann_file, img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs
        )
