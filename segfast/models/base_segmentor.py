"""BaseSegmentor: dispatch by mode, and the way from logits back to the original image."""

# SPDX-License-Identifier: Apache-2.0
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from segfast.models.base import BaseModel
from segfast.structures import PixelData, SegDataSample


class BaseSegmentor(BaseModel):
    """A model for semantic segmentation.

    Attributes:
        align_corners: of every bilinear resize.
        test_cfg: `keep_logits` (default True) stores `seg_logits` in the predicted samples.
    """

    align_corners: bool = False
    test_cfg: Mapping[str, Any] | None = None

    @property
    def with_neck(self) -> bool:
        """Whether there is a neck."""
        return getattr(self, "neck", None) is not None

    @property
    def with_auxiliary_head(self) -> bool:
        """Whether there is an auxiliary head."""
        return getattr(self, "auxiliary_head", None) is not None

    @property
    def with_decode_head(self) -> bool:
        """Whether there is a decode head."""
        return getattr(self, "decode_head", None) is not None

    @property
    def threshold(self) -> float:
        """Probability above which a one-channel output means class 1; the decode head's if set."""
        value = getattr(getattr(self, "decode_head", None), "threshold", None)
        return 0.5 if value is None else value

    def forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[SegDataSample] | None = None,
        mode: str = "tensor",
    ) -> Any:
        """Answer in one of three modes.

        Args:
            inputs: (N, C, H, W) preprocessed images.
            data_samples: one per image; needed for "loss".
            mode: "loss" -> dict of tensors, "predict" -> list of samples, "tensor" -> raw logits.

        Raises:
            RuntimeError: another mode.
        """
        if mode == "loss":
            return self.loss(inputs, data_samples)
        if mode == "predict":
            return self.predict(inputs, data_samples)
        if mode == "tensor":
            return self._forward(inputs, data_samples)
        raise RuntimeError(f"expected mode 'loss', 'predict' or 'tensor', got {mode!r}")

    @abstractmethod
    def extract_feat(self, inputs: Tensor) -> Any:
        """Images -> features."""

    @abstractmethod
    def encode_decode(self, inputs: Tensor, batch_img_metas: Sequence[Mapping]) -> Tensor:
        """Images -> logits (N, C, H, W) at the images' size."""

    @abstractmethod
    def loss(self, inputs: Tensor, data_samples: Any) -> dict[str, Tensor]:
        """Images and samples with ground truth -> named losses."""

    @abstractmethod
    def predict(self, inputs: Tensor, data_samples: Any = None) -> list[SegDataSample]:
        """Images -> samples with predictions, at the original images' size."""

    @abstractmethod
    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Any:
        """Images -> raw logits."""

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Take logits back through padding, flip and resize, and decide the classes.

        Args:
            seg_logits: (N, C, H, W) at the padded images' size.
            data_samples: their metainfo `img_padding_size` or `padding_size` (left, right, top,
                bottom), `flip` with `flip_direction`, and `ori_shape` (h, w) say what was done.
                None: the logits are used as they are.

        Returns:
            The same samples (or new ones) with `pred_sem_seg`, (1, h, w) int64, and, unless
            `test_cfg` has keep_logits=False, `seg_logits`, (C, h, w): logits, or the probability
            when there is one channel.
        """
        samples = data_samples
        if samples is None:
            samples = [SegDataSample() for _ in range(seg_logits.shape[0])]
        keep_logits = (self.test_cfg or {}).get("keep_logits", True)
        for logits, sample in zip(seg_logits, samples, strict=True):
            if data_samples is not None:
                logits = self._to_original(logits, sample.metainfo)
            if logits.shape[0] == 1:
                logits = logits.sigmoid()
                pred = (logits > self.threshold).long()
            else:
                pred = logits.argmax(0, keepdim=True)
            if keep_logits:
                sample.set_data({"seg_logits": PixelData(data=logits)})
            sample.set_data({"pred_sem_seg": PixelData(data=pred)})
        return samples

    def _to_original(self, logits: Tensor, metainfo: Mapping[str, Any]) -> Tensor:
        """Un-pad, un-flip and resize (C, H, W) to `ori_shape`."""
        default = metainfo.get("padding_size", (0, 0, 0, 0))
        left, right, top, bottom = metainfo.get("img_padding_size", default)
        height, width = logits.shape[-2:]
        logits = logits[:, top : height - bottom, left : width - right]
        if metainfo.get("flip"):
            direction = metainfo.get("flip_direction")
            assert direction in ("horizontal", "vertical"), f"cannot undo flip {direction!r}"
            logits = logits.flip(2 if direction == "horizontal" else 1)
        height, width = metainfo["ori_shape"]
        return self._resize(logits[None], (height, width))[0]

    def _resize(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Bilinear resize of (N, C, h, w); the same tensor when the size is right already."""
        if tuple(logits.shape[-2:]) == tuple(size):
            return logits
        size = [int(size[0]), int(size[1])]
        return F.interpolate(logits, size, mode="bilinear", align_corners=self.align_corners)
