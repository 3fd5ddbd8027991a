"""BaseSegmentor: dispatch by mode, and the way from logits back to the original image."""

# SPDX-License-Identifier: Apache-2.0
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segfast import ops
from segfast.models.base import BaseModel
from segfast.models.resize import resize
from segfast.models.sliding_window import assemble, slide
from segfast.structures import PixelData, SegDataSample


class BaseSegmentor(BaseModel):
    """A model for semantic segmentation.

    Attributes:
        align_corners: of every bilinear resize.
        test_cfg: `keep_logits` says whether predicted samples carry `seg_logits`, all classes at the
            original size: True always, False never, None (the default) everywhere but in `val_step`.
    """

    align_corners: bool = False
    test_cfg: Mapping[str, Any] | None = None
    _validating: bool = False

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

    @property
    def keep_logits(self) -> bool:
        """Whether the samples predicted now carry their logits."""
        asked = (self.test_cfg or {}).get("keep_logits")
        return not self._validating if asked is None else bool(asked)

    def val_step(self, data: Any) -> Any:
        """As `test_step`, but samples carry logits only where `test_cfg` has keep_logits=True.

        Metrics and pictures of a validation read the classes; (C, h, w) floats per image are what
        makes it run out of memory.
        """
        self._validating = True
        try:
            return super().val_step(data)
        finally:
            self._validating = False

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
        self,
        seg_logits: Tensor,
        data_samples: list[SegDataSample] | None = None,
        input_size: Sequence[int] | None = None,
    ) -> list[SegDataSample]:
        """Take logits back through padding, flip and resize, and decide the classes.

        Args:
            seg_logits: (N, C, h, w).
            data_samples: their metainfo `img_padding_size` or `padding_size` (left, right, top,
                bottom), `flip` with `flip_direction`, and `ori_shape` (h, w) say what was done.
                None: the logits are used at the padded images' size.
            input_size: (H, W) of the padded images, where the logits are still smaller or larger.

        Returns:
            The same samples (or new ones) with `pred_sem_seg`, (1, h, w) int64, and, where
            `keep_logits`, `seg_logits`, (C, h, w): logits, or the probability when there is one
            channel. Without them the classes are decided while resizing: no image's logits are ever
            at full size, or, where `ori_shape` asks for a second resize, only at the padded size.
        """
        samples = data_samples
        if samples is None:
            samples = [SegDataSample() for _ in range(seg_logits.shape[0])]
        size = seg_logits.shape[-2:] if input_size is None else input_size
        for logits, sample in zip(seg_logits.unsqueeze(1), samples, strict=True):
            metainfo = None if data_samples is None else sample.metainfo
            if logits.shape[1] > 1 and not self.keep_logits:
                pred = self._decide(logits, size, metainfo)
            else:
                logits = self._resize(logits, size)
                if metainfo is not None:
                    logits = self._resize(_undo(logits, metainfo), metainfo["ori_shape"])
                if logits.shape[1] == 1:
                    logits = logits.sigmoid()
                    pred = (logits[0] > self.threshold).long()
                else:
                    pred = logits.argmax(1)
                if self.keep_logits:
                    sample.set_data({"seg_logits": PixelData(data=logits[0])})
            sample.set_data({"pred_sem_seg": PixelData(data=pred)})
        return samples

    def _slide_rows(
        self, inputs: Tensor, logits_of: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[int, Tensor]]:
        """Sliding windows as `test_cfg` has them; `logits_of` gives a window's."""
        cfg: Any = self.test_cfg
        gaussian = cfg.get("gaussian", False)
        return slide(inputs, logits_of, cfg["crop_size"], cfg["stride"], gaussian)

    def postprocess_rows(
        self,
        rows: Iterator[tuple[int, Tensor]],
        size: Sequence[int],
        data_samples: list[SegDataSample] | None = None,
    ) -> list[SegDataSample]:
        """As `postprocess_result`, of logits that come row by row out of `sliding_window.slide`.

        Args:
            rows: (top, logits (N, C, rows, W)).
            size: (H, W) of all rows together.
            data_samples: see `postprocess_result`.

        Returns:
            See there. Where nothing reads the logits but the choice of classes, those of one
            row of windows are all that is ever held.
        """
        metas = [sample.metainfo for sample in data_samples or []]
        if self.keep_logits or not all(_is_final(size, meta) for meta in metas):
            return self.postprocess_result(assemble(rows, size[0]), data_samples)
        classes = torch.cat([self._classes(logits) for _, logits in rows], dim=1)
        samples = [SegDataSample() for _ in classes] if data_samples is None else data_samples
        for i, sample in enumerate(samples):
            pred = classes[i : i + 1]
            pred = _undo(pred, metas[i]) if metas else pred
            sample.set_data({"pred_sem_seg": PixelData(data=pred)})
        return samples

    def _classes(self, logits: Tensor) -> Tensor:
        """Logits (N, C, h, w) -> classes (N, h, w) int64."""
        if logits.shape[1] == 1:
            return (logits.squeeze(1).sigmoid() > self.threshold).long()
        return logits.argmax(1)

    def _decide(
        self, logits: Tensor, size: Sequence[int], metainfo: Mapping[str, Any] | None
    ) -> Tensor:
        """(1, C, h, w) -> the classes (1, H, W) at the original size, fused with the last resize."""
        if metainfo is None:
            return ops.upsample_argmax(logits, size, align_corners=self.align_corners)
        if _is_final(size, metainfo):
            # Cutting and flipping move pixels about: they may as well move classes.
            pred = ops.upsample_argmax(logits, size, align_corners=self.align_corners)
            return _undo(pred, metainfo)
        logits = _undo(self._resize(logits, size), metainfo)
        height, width = metainfo["ori_shape"]
        original = int(height), int(width)
        return ops.upsample_argmax(logits, original, align_corners=self.align_corners)

    def _resize(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        return resize(logits, size, self.align_corners)


def _padding(metainfo: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) that was added at test time, or else in training."""
    default = metainfo.get("padding_size", (0, 0, 0, 0))
    left, right, top, bottom = metainfo.get("img_padding_size", default)
    return int(left), int(right), int(top), int(bottom)


def _is_final(size: Sequence[int], metainfo: Mapping[str, Any]) -> bool:
    """Whether an image of `size` is the original one but for padding and flip."""
    height, width = metainfo["ori_shape"]
    left, right, top, bottom = _padding(metainfo)
    return (size[0] - top - bottom, size[1] - left - right) == (height, width)


def _undo(pixels: Tensor, metainfo: Mapping[str, Any]) -> Tensor:
    """Cut the padding off (..., H, W) and flip back."""
    left, right, top, bottom = _padding(metainfo)
    height, width = pixels.shape[-2:]
    pixels = pixels[..., top : height - bottom, left : width - right]
    if not metainfo.get("flip"):
        return pixels
    direction = metainfo.get("flip_direction")
    assert direction in ("horizontal", "vertical"), f"cannot undo flip {direction!r}"
    return pixels.flip(-1 if direction == "horizontal" else -2)
