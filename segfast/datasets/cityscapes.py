"""CityscapesDataset: 19 classes of streets, masks of train ids."""

# SPDX-License-Identifier: Apache-2.0
from typing import Any, ClassVar

from segfast.datasets.base import BaseSegDataset
from segfast.datasets.folder import Suffixes
from segfast.registry import DATASETS

# fmt: off
_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)
_PALETTE = [
    [128, 64, 128], [244, 35, 232], [70, 70, 70], [102, 102, 156], [190, 153, 153],
    [153, 153, 153], [250, 170, 30], [220, 220, 0], [107, 142, 35], [152, 251, 152],
    [70, 130, 180], [220, 20, 60], [255, 0, 0], [0, 0, 142], [0, 0, 70], [0, 60, 100],
    [0, 80, 100], [0, 0, 230], [119, 11, 32],
]
# fmt: on


@DATASETS.register_module()
class CityscapesDataset(BaseSegDataset):
    """Cityscapes: `leftImg8bit` and `gtFine`, whose masks of train ids `csCreateTrainIdLabelImgs` makes.

    Args:
        img_suffix: ending of image files.
        seg_map_suffix: ending of mask files.
        **kwargs: of `BaseSegDataset`.
    """

    METAINFO: ClassVar[dict] = {"classes": _CLASSES, "palette": _PALETTE}
    ALIASES: ClassVar[tuple[str, ...]] = ("cityscapes",)

    def __init__(
        self,
        img_suffix: Suffixes = "_leftImg8bit.png",
        seg_map_suffix: Suffixes = "_gtFine_labelTrainIds.png",
        **kwargs: Any,
    ) -> None:
        """Name the endings."""
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
