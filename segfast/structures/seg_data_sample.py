"""SegDataSample: what is known and what is predicted about one image in semantic segmentation."""

# SPDX-License-Identifier: Apache-2.0
from segfast.structures.base import BaseDataElement
from segfast.structures.pixel_data import PixelData


class SegDataSample(BaseDataElement):
    """Ground truth and predictions of one image; other fields (`gt_edge_map`, ...) are free.

    Attributes:
        gt_sem_seg: PixelData with `data` (1, H, W), integer labels.
        pred_sem_seg: PixelData with `data` (1, H, W), integer labels.
        seg_logits: PixelData with `data` (C, H, W), float, before softmax.
    """

    _gt_sem_seg: PixelData
    _pred_sem_seg: PixelData
    _seg_logits: PixelData

    @property
    def gt_sem_seg(self) -> PixelData:
        """The labels, `data` (1, H, W)."""
        return self._gt_sem_seg

    @gt_sem_seg.setter
    def gt_sem_seg(self, value: PixelData) -> None:
        self.set_field(value, "_gt_sem_seg", dtype=PixelData)

    @gt_sem_seg.deleter
    def gt_sem_seg(self) -> None:
        del self._gt_sem_seg

    @property
    def pred_sem_seg(self) -> PixelData:
        """The predicted labels, `data` (1, H, W)."""
        return self._pred_sem_seg

    @pred_sem_seg.setter
    def pred_sem_seg(self, value: PixelData) -> None:
        self.set_field(value, "_pred_sem_seg", dtype=PixelData)

    @pred_sem_seg.deleter
    def pred_sem_seg(self) -> None:
        del self._pred_sem_seg

    @property
    def seg_logits(self) -> PixelData:
        """The network's output at label size, `data` (C, H, W)."""
        return self._seg_logits

    @seg_logits.setter
    def seg_logits(self, value: PixelData) -> None:
        self.set_field(value, "_seg_logits", dtype=PixelData)

    @seg_logits.deleter
    def seg_logits(self) -> None:
        del self._seg_logits
