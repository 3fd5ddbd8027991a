"""SegformerHead: every stage's features brought to one width, added up at the finest stage, classified."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from segfast.models.conv_module import ConvModule
from segfast.models.decode_heads.decode_head import BaseDecodeHead
from segfast.models.resize import resize
from segfast.registry import MODELS

_LINEAR_MODES = ("nearest", "nearest-exact", "bilinear", "bicubic")


@MODELS.register_module()
class SegformerHead(BaseDecodeHead):
    """SegFormer's all-MLP head.

    Math: fuse(concat_i(resize(a_i))) = sum_i resize(fuse_i(a_i)), because a 1x1 convolution and a
    resize are both linear. So each stage is mixed at its own size and one map of `channels` is added
    up, where the textbook order holds and mixes the concatenation of all of them at the finest
    stage. Results agree up to rounding; the parameters are the same.

    Source: Xie et al. 2021, arXiv:2105.15203, section 3.2.

    Args:
        interpolate_mode: of the resize: "bilinear", "nearest" or "bicubic".
        **kwargs: see `BaseDecodeHead`; `in_channels` and `in_index` are lists.
    """

    def __init__(self, interpolate_mode: str = "bilinear", **kwargs: Any) -> None:
        """Build one 1x1 convolution per stage, and the one that mixes them."""
        super().__init__(input_transform="multiple_select", **kwargs)
        known = interpolate_mode in _LINEAR_MODES
        assert known, f"interpolate_mode is one of {_LINEAR_MODES}, not {interpolate_mode!r}"
        self.interpolate_mode = interpolate_mode
        options: dict[str, Any] = {"norm_cfg": self.norm_cfg, "act_cfg": self.act_cfg}
        self.convs = nn.ModuleList(
            ConvModule(width, self.channels, 1, **options) for width in self.in_channels
        )
        stages = len(self.in_channels)
        self.fusion_conv = ConvModule(
            self.channels * stages, self.channels, 1, norm_cfg=self.norm_cfg
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps, the finest first -> logits (N, out_channels, h, w) at its size."""
        maps = self._transform_inputs(inputs)
        mix = self.fusion_conv.conv
        weights = mix.weight.split(self.channels, dim=1)
        size = maps[0].shape[2:]
        parts = [
            F.conv2d(conv(x), weight, mix.bias if i == 0 else None)
            for i, (x, conv, weight) in enumerate(zip(maps, self.convs, weights, strict=True))
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + resize(part, size, self.align_corners, self.interpolate_mode)
        return self.cls_seg(self.fusion_conv.finish(total))
