"""EncoderDecoder: a backbone, perhaps a neck, a decode head, and auxiliary heads for training."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from segfast.errors import ConfigError
from segfast.models.base_segmentor import BaseSegmentor
from segfast.models.decode_heads import BaseCascadeDecodeHead, BaseDecodeHead
from segfast.models.feature_maps import as_feature_maps, feature_channels
from segfast.models.inference_cfg import AttributeDict, checked_test_cfg
from segfast.models.sliding_window import assemble
from segfast.registry import MODELS
from segfast.structures import SegDataSample


@MODELS.register_module()
class EncoderDecoder(BaseSegmentor):
    """A segmentor out of parts.

    Every part is a module or its config. Feature maps go from the backbone through the neck to all
    heads. Training adds up `decode.*` and `aux.*` (or `aux_0.*`, `aux_1.*`) losses.

    Args:
        backbone: images -> feature maps: a list, a mapping (torchvision), one tensor, or an object
            with `feature_maps` (transformers). dict(type="timm.create_model", model_name=...,
            features_only=True) is one.
        decode_head: the head that predicts. It may leave out `in_channels` where the backbone tells
            its channels, as timm's do.
        neck: feature maps -> feature maps.
        auxiliary_head: a further head for training, or a list of them.
        train_cfg: handed to the heads.
        test_cfg: `mode` "whole" (default) or "slide", which needs `crop_size` and `stride`, both
            (height, width), and may set `gaussian` (see `sliding_window.slide`); `keep_logits` (see
            `BaseSegmentor`). Other keys are for the heads.
        data_preprocessor: a module or its config.
        pretrained: becomes the backbone's argument of that name.
        init_cfg: not applied, see `BaseModel`.
    """

    neck: Any
    decode_head: Any
    auxiliary_head: Any

    def __init__(
        self,
        backbone: nn.Module | Mapping,
        decode_head: Any,
        neck: nn.Module | Mapping | None = None,
        auxiliary_head: Any = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        data_preprocessor: nn.Module | Mapping | None = None,
        pretrained: str | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        """Build the parts.

        Raises:
            ConfigError: a part's config is wrong, or `test_cfg`.
            AssertionError: `pretrained` is given twice.
        """
        super().__init__(data_preprocessor, init_cfg)
        if pretrained is not None:
            backbone = _with_pretrained(backbone, pretrained)
        self.backbone = MODELS.build(backbone, path="backbone")
        if neck is not None:
            self.neck = MODELS.build(neck, path="neck")
        self._init_decode_head(decode_head)
        self._init_auxiliary_head(auxiliary_head)
        self.train_cfg = None if train_cfg is None else AttributeDict(train_cfg)
        self.test_cfg = checked_test_cfg(test_cfg, type(self).__name__, others=True)

    def _init_decode_head(self, decode_head: Any) -> None:
        """Build the head that predicts, and take over what it says about its output."""
        self.decode_head = self._build_head(decode_head, "decode_head")
        self._take_over(self.decode_head)

    def _init_auxiliary_head(self, auxiliary_head: Any) -> None:
        """Build the heads that only train."""
        if isinstance(auxiliary_head, (list, tuple)):
            self.auxiliary_head = nn.ModuleList(
                self._build_head(cfg, f"auxiliary_head.{i}") for i, cfg in enumerate(auxiliary_head)
            )
        elif auxiliary_head is not None:
            self.auxiliary_head = self._build_head(auxiliary_head, "auxiliary_head")

    def _build_head(self, cfg: Any, path: str) -> nn.Module:
        """A head; where it misses `in_channels`, those of the feature maps it reads."""
        try:
            return MODELS.build(cfg, path=path)
        except ConfigError as error:
            if error.path != f"{path}.in_channels" or "in_channels" in cfg:
                raise
            channels = feature_channels(self.neck if self.with_neck else self.backbone)
            index = cfg.get("in_index", -1)
            several = isinstance(index, (list, tuple))
            if channels is None or not all(
                -len(channels) <= i < len(channels) for i in (index if several else [index])
            ):
                raise
        found = [channels[i] for i in index] if several else channels[index]
        return MODELS.build({**cfg, "in_channels": found}, path=path)

    def _take_over(self, head: Any) -> None:
        self.align_corners = head.align_corners
        self.num_classes = head.num_classes
        self.out_channels = head.out_channels

    @property
    def _last_head(self) -> Any:
        """The head whose logits are the answer."""
        return self.decode_head

    def _head_inputs(self, feats: Sequence[Tensor]) -> tuple:
        """What the last head's `forward` takes."""
        return (feats,)

    def extract_feat(self, inputs: Tensor) -> Sequence[Tensor]:
        """Images (N, C, H, W) -> feature maps, out of the neck where there is one."""
        feats = as_feature_maps(self.backbone(inputs))
        return as_feature_maps(self.neck(feats)) if self.with_neck else feats

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Tensor:
        """Images (N, C, H, W) -> logits (N, K, h, w) as the head gives them."""
        return self._last_head(*self._head_inputs(self.extract_feat(inputs)))

    def encode_decode(self, inputs: Tensor, batch_img_metas: Sequence[Mapping]) -> Tensor:
        """Images (N, C, H, W) -> logits (N, K, H, W).

        The head is told the size that it is shown, as `img_shape` of the first image.
        """
        metas = [{**batch_img_metas[0], "img_shape": inputs.shape[2:]}, *batch_img_metas[1:]]
        head_inputs = self._head_inputs(self.extract_feat(inputs))
        return self._last_head.predict(*head_inputs, metas, self.test_cfg)

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            inputs: (N, C, H, W).
            data_samples: each with `gt_sem_seg`, data (1, H, W) integer.

        Returns:
            What every head's `loss` says, its prefix and a dot in front of the names.
        """
        feats = self.extract_feat(inputs)
        losses = self._decode_head_forward_train(feats, data_samples)
        if self.with_auxiliary_head:
            losses.update(self._auxiliary_head_forward_train(feats, data_samples))
        return losses

    def _decode_head_forward_train(
        self, feats: Sequence[Tensor], data_samples: Sequence[SegDataSample]
    ) -> dict[str, Tensor]:
        losses = self.decode_head.loss(feats, data_samples, self.train_cfg)
        return add_prefix(losses, "decode")

    def _auxiliary_head_forward_train(
        self, feats: Sequence[Tensor], data_samples: Sequence[SegDataSample]
    ) -> dict[str, Tensor]:
        if not isinstance(self.auxiliary_head, nn.ModuleList):
            losses = self.auxiliary_head.loss(feats, data_samples, self.train_cfg)
            return add_prefix(losses, "aux")
        losses = {}
        heads: Any = self.auxiliary_head
        for i, head in enumerate(heads):
            found = head.loss(feats, data_samples, self.train_cfg)
            losses.update(add_prefix(found, f"aux_{i}"))
        return losses

    def predict(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Classes of every pixel, at the original images' size.

        Args:
            inputs: (N, C, H, W).
            data_samples: see `postprocess_result`; these objects receive the predictions.

        Returns:
            N samples. Logits of the images' size are made for one image at a time, and only where
            samples keep them (see `BaseSegmentor`) or a second resize reads them; with sliding
            windows, for one row of windows at a time. A subclass or head that brings its own way
            from features to full-size logits is asked for those.
        """
        slides = (self.test_cfg or {}).get("mode") == "slide"
        if slides and has_methods_of(self, EncoderDecoder, "inference", "slide_inference"):
            rows = self._slide(inputs, _metas(inputs, data_samples))
            return self.postprocess_rows(rows, inputs.shape[2:], data_samples)
        if not slides and self._only_resizes():
            return self.postprocess_result(self._forward(inputs), data_samples, inputs.shape[2:])
        seg_logits = self.inference(inputs, _metas(inputs, data_samples))
        return self.postprocess_result(seg_logits, data_samples)

    def _only_resizes(self) -> bool:
        """Whether whole inference is the head's `forward` and one bilinear resize."""
        head = self._last_head
        return (
            has_methods_of(self, EncoderDecoder, "inference", "whole_inference", "encode_decode")
            and has_methods_of(head, BaseDecodeHead, "predict_by_feat")
            and (
                has_methods_of(head, BaseDecodeHead, "predict")
                or has_methods_of(head, BaseCascadeDecodeHead, "predict")
            )
        )

    def inference(self, inputs: Tensor, batch_img_metas: Sequence[Mapping]) -> Tensor:
        """Images -> logits (N, K, H, W), in the mode that `test_cfg` names."""
        if (self.test_cfg or {}).get("mode") == "slide":
            return self.slide_inference(inputs, batch_img_metas)
        return self.whole_inference(inputs, batch_img_metas)

    def whole_inference(self, inputs: Tensor, batch_img_metas: Sequence[Mapping]) -> Tensor:
        """Images -> logits (N, K, H, W) in one piece."""
        return self.encode_decode(inputs, batch_img_metas)

    def slide_inference(self, inputs: Tensor, batch_img_metas: Sequence[Mapping]) -> Tensor:
        """Images -> logits (N, K, H, W), the mean of overlapping windows."""
        return assemble(self._slide(inputs, batch_img_metas), inputs.shape[2])

    def _slide(
        self, inputs: Tensor, batch_img_metas: Sequence[Mapping]
    ) -> Iterator[tuple[int, Tensor]]:
        return self._slide_rows(inputs, lambda crop: self.encode_decode(crop, batch_img_metas))


def add_prefix(losses: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """`name` -> `prefix.name`."""
    return {f"{prefix}.{name}": value for name, value in losses.items()}


def _with_pretrained(backbone: Any, pretrained: str) -> dict[str, Any]:
    if not isinstance(backbone, Mapping):
        raise ConfigError("pretrained", "the backbone is built already: load its weights there")
    assert backbone.get("pretrained") is None, "both backbone and segmentor set pretrained"
    return {**backbone, "pretrained": pretrained}


def _metas(inputs: Tensor, samples: Sequence[SegDataSample] | None) -> Sequence[Mapping]:
    """What is known about each image; without samples, that it is as it came."""
    if samples is not None:
        return [sample.metainfo for sample in samples]
    size = inputs.shape[2:]
    meta = {"ori_shape": size, "img_shape": size, "pad_shape": size, "padding_size": [0, 0, 0, 0]}
    return [meta] * inputs.shape[0]


def has_methods_of(part: Any, base: type, *names: str) -> bool:
    """Whether these methods are the ones that `base` has."""
    methods = (getattr(part, name, None) for name in names)
    found = (getattr(method, "__func__", None) for method in methods)
    return all(f is getattr(base, name) for f, name in zip(found, names, strict=True))
