"""BaseDecodeHead: features in, logits at the features' stride out, losses and predictions from them."""

# SPDX-License-Identifier: Apache-2.0
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from segfast.errors import ConfigError, LabelError
from segfast.models.conv_module import RELU
from segfast.models.decode_heads.arguments import (
    build_losses,
    checked_inputs,
    checked_outputs,
    checked_threshold,
)
from segfast.models.initial_weights import init_parts
from segfast.models.mixed_labels import over_labels
from segfast.models.named_losses import name_bad_label, named_losses, stack_labels
from segfast.models.ohem_sampler import OHEMPixelSampler
from segfast.models.resize import resize
from segfast.registry import MODELS
from segfast.structures import SegDataSample

_CROSS_ENTROPY: Mapping = MappingProxyType({"type": "CrossEntropyLoss"})
_CLASSIFIER_STD = 0.01


class BaseDecodeHead(nn.Module, ABC):
    """A head for semantic segmentation; subclasses implement `forward`.

    The losses read the logits at the features' own stride: logits of the labels' size are made only
    for a loss that is no `CrossEntropyLoss`, for a foreign sampler, and by `predict_by_feat`.

    Args:
        in_channels: channels of the feature map, or of each where `input_transform` takes several.
            In an `EncoderDecoder` it may be left out if the backbone tells its channels.
        channels: channels before the classifier.
        num_classes: classes to tell apart.
        out_channels: of the classifier: `num_classes` (when None), or 1 for a sigmoid.
        threshold: probability above which one channel means class 1; 0.3 when None.
        dropout_ratio: of whole channels before the classifier.
        conv_cfg: `dict(type=...)` of the convolutions, None for plain ones.
        norm_cfg: of the norms, None for none.
        act_cfg: of the activations.
        in_index: which feature map, or which several.
        input_transform: None for one feature map, "multiple_select" for a list of several,
            "resize_concat" for several resized to the first one's size and concatenated.
        loss_decode: a loss (a module or its config) or a list of them.
        ignore_index: label that no loss counts.
        sampler: config of a pixel sampler, for example dict(type="OHEMPixelSampler", thresh=0.7).
        align_corners: of every bilinear resize.
        init_cfg: not applied: the constructor initialises, the classifier with standard deviation
            0.01.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int] | None = None,
        channels: int | None = None,
        *,
        num_classes: int,
        out_channels: int | None = None,
        threshold: float | None = None,
        dropout_ratio: float = 0.1,
        conv_cfg: Mapping | None = None,
        norm_cfg: Mapping | None = None,
        act_cfg: Mapping | None = RELU,
        in_index: int | Sequence[int] = -1,
        input_transform: str | None = None,
        loss_decode: nn.Module | Mapping | Sequence = _CROSS_ENTROPY,
        ignore_index: int = 255,
        sampler: Mapping | None = None,
        align_corners: bool = False,
        init_cfg: Mapping | None = None,
    ) -> None:
        """Check the settings and build classifier, losses and sampler.

        Raises:
            ConfigError: `in_channels` or `channels` is missing, or a part's config is wrong.
            AssertionError: `in_channels`, `in_index` and `input_transform` do not fit.
            TypeError: `loss_decode` is neither a loss nor a list of losses.
            ValueError: `out_channels` is neither `num_classes` nor 1.
        """
        super().__init__()
        for name, value in (("in_channels", in_channels), ("channels", channels)):
            if value is None:
                raise ConfigError(name, f"missing, {type(self).__name__} needs this argument")
        assert channels is not None
        self.in_channels: Any = checked_inputs(in_channels, in_index, input_transform)
        self.in_index: Any = in_index
        self.input_transform = input_transform
        self.channels = channels
        self.num_classes = num_classes
        self.out_channels = checked_outputs(out_channels, num_classes)
        self.threshold = checked_threshold(threshold, self.out_channels)
        self.dropout_ratio = dropout_ratio
        self.conv_cfg, self.norm_cfg = conv_cfg, norm_cfg
        self.act_cfg = None if act_cfg is None else dict(act_cfg)
        self.ignore_index = ignore_index
        self.align_corners = align_corners
        self.loss_decode = build_losses(loss_decode)
        self.conv_seg = nn.Conv2d(channels, self.out_channels, kernel_size=1)
        nn.init.normal_(self.conv_seg.weight, std=_CLASSIFIER_STD)
        nn.init.zeros_(self.conv_seg.bias)  # type: ignore[arg-type]
        self.dropout = nn.Dropout2d(dropout_ratio) if dropout_ratio > 0 else None
        self.init_cfg = init_cfg
        if init_cfg is not None:
            warnings.warn("init_cfg is not applied: constructors initialise", stacklevel=2)
        self.sampler: Any = None
        if sampler is not None:
            self.sampler = MODELS.build(sampler, path="sampler", context=self)

    def init_weights(self) -> None:
        """As `BaseModel.init_weights`."""
        init_parts(self)

    @property
    def conv_options(self) -> dict[str, Any]:
        """What a `ConvModule` of this head takes from its arguments."""
        return {"conv_cfg": self.conv_cfg, "norm_cfg": self.norm_cfg, "act_cfg": self.act_cfg}

    def extra_repr(self) -> str:
        """Show what is done with inputs and labels."""
        return (
            f"input_transform={self.input_transform}, ignore_index={self.ignore_index}, "
            f"align_corners={self.align_corners}"
        )

    @abstractmethod
    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps -> logits (N, out_channels, h, w)."""

    def cls_seg(self, feat: Tensor) -> Tensor:
        """(N, channels, h, w) -> logits (N, out_channels, h, w)."""
        return self.conv_seg(feat if self.dropout is None else self.dropout(feat))

    def loss(
        self, inputs: Sequence[Tensor], batch_data_samples: Sequence[SegDataSample], train_cfg: Any
    ) -> dict[str, Tensor]:
        """Feature maps and samples with ground truth -> losses by name, and `acc_seg`."""
        return self.loss_by_feat(self.forward(inputs), batch_data_samples)

    def predict(
        self, inputs: Sequence[Tensor], batch_img_metas: Sequence[Mapping], test_cfg: Any
    ) -> Tensor:
        """Feature maps -> logits (N, out_channels, H, W) of the input images' size."""
        return self.predict_by_feat(self.forward(inputs), batch_img_metas)

    def loss_by_feat(
        self, seg_logits: Tensor, batch_data_samples: Sequence[SegDataSample]
    ) -> dict[str, Tensor]:
        """Every loss of the logits.

        Args:
            seg_logits: (N, C, h, w).
            batch_data_samples: each with `gt_sem_seg`, data (1, H, W) integer; or (C, H, W) float,
                soft labels; and perhaps a second label map, see `mixed_labels`.

        Returns:
            The losses by their `loss_name` (equal names add up), and `acc_seg`, (1,) float32:
            the percentage of valid pixels whose best class is right, from the first
            cross-entropy's own pass.

        Raises:
            LabelError: on the CPU, labels out of range; names the image.
        """
        label = self._stack_batch_gt(batch_data_samples).squeeze(1)
        losses_of = partial(self._named_losses, seg_logits)
        try:
            losses, losses["acc_seg"] = over_labels(losses_of, label, batch_data_samples)
        except LabelError as error:
            channels = seg_logits.shape[1]
            raise name_bad_label(error, channels, batch_data_samples, self.ignore_index) from None
        return losses

    def _named_losses(self, logits: Tensor, label: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Losses by name and the accuracy of (N, C, h, w) logits and (N, H, W) labels."""
        several = isinstance(self.loss_decode, nn.ModuleList)
        modules: Any = self.loss_decode if several else [self.loss_decode]
        return named_losses(
            modules,
            logits,
            label,
            weight=self._pixel_weight(logits, label),
            ignore_index=self.ignore_index,
            align_corners=self.align_corners,
        )

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas: Sequence[Mapping]) -> Tensor:
        """Resize logits to the input images' size.

        Args:
            seg_logits: (N, C, h, w).
            batch_img_metas: the first one's `img_shape` if that is a torch.Size (an
                `EncoderDecoder` writes there what it shows to the head), or else its `pad_shape`
                or `img_shape` is the size.
        """
        meta = batch_img_metas[0]
        size = meta["img_shape"]
        if not isinstance(size, torch.Size) and meta.get("pad_shape") is not None:
            size = meta["pad_shape"]
        return resize(seg_logits, size[:2], self.align_corners)

    def _transform_inputs(self, inputs: Sequence[Tensor]) -> Any:
        """Select feature maps as `input_transform` says."""
        if self.input_transform is None:
            return inputs[self.in_index]
        maps = [inputs[i] for i in self.in_index]
        if self.input_transform == "multiple_select":
            return maps
        size = maps[0].shape[2:]
        return torch.cat([resize(x, size, self.align_corners) for x in maps], dim=1)

    def _stack_batch_gt(self, batch_data_samples: Sequence[SegDataSample]) -> Tensor:
        """Labels (N, 1, H, W)."""
        return stack_labels(batch_data_samples)

    def _pixel_weight(self, logits: Tensor, label: Tensor) -> Tensor | None:
        """What the sampler makes of (N, C, h, w) logits and (N, H, W) labels."""
        if self.sampler is None:
            return None
        if isinstance(self.sampler, OHEMPixelSampler):
            return self.sampler.weigh(logits, label)
        full = resize(logits, label.shape[-2:], self.align_corners)
        return self.sampler.sample(full, label.unsqueeze(1))
