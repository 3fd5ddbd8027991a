"""Atrous spatial pyramid pooling: the heads of DeepLabV3 and V3+."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segfast.models.conv_module import ConvModule, DepthwiseSeparableConvModule
from segfast.models.decode_heads.decode_head import BaseDecodeHead
from segfast.models.resize import resize
from segfast.registry import MODELS


@MODELS.register_module()
class ASPPHead(BaseDecodeHead):
    """DeepLabV3: convolutions of several dilations beside the image's mean.

    Source: Chen et al. 2017, arXiv:1706.05587.

    Args:
        dilations: of the parallel convolutions; 1 is a 1x1 one.
        **kwargs: see `BaseDecodeHead`.
    """

    def __init__(self, dilations: Sequence[int] = (1, 6, 12, 18), **kwargs: Any) -> None:
        """Build the branches and what mixes them."""
        super().__init__(**kwargs)
        is_list = isinstance(dilations, (list, tuple))
        assert is_list, f"dilations should be a list, got {dilations!r}"
        self.dilations = dilations
        pooled = ConvModule(self.in_channels, self.channels, 1, **self.conv_options)
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), pooled)
        self.aspp_modules = nn.ModuleList(self._branch(dilation) for dilation in dilations)
        width = (len(dilations) + 1) * self.channels
        self.bottleneck = ConvModule(width, self.channels, 3, padding=1, **self.conv_options)

    def _branch(self, dilation: int) -> nn.Module:
        kernel, padding = (1, 0) if dilation == 1 else (3, dilation)
        return ConvModule(
            self.in_channels,
            self.channels,
            kernel,
            padding=padding,
            dilation=dilation,
            **self.conv_options,
        )

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps -> (N, channels, h, w)."""
        x = self._transform_inputs(inputs)
        # The mean is one pixel: stretched over the map it needs no interpolation.
        mean = self.image_pool(x).expand(-1, -1, *x.shape[2:])
        return self.bottleneck(torch.cat([mean, *(branch(x) for branch in self.aspp_modules)], 1))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps -> logits (N, out_channels, h, w)."""
        return self.cls_seg(self._forward_feature(inputs))


@MODELS.register_module()
class DepthwiseSeparableASPPHead(ASPPHead):
    """DeepLabV3+: separable convolutions, refined with the finest feature map.

    Source: Chen et al. 2018, arXiv:1802.02611.

    Args:
        c1_in_channels: channels of the first feature map; 0 leaves it out.
        c1_channels: what it is brought to.
        **kwargs: see `ASPPHead`.
    """

    def __init__(self, c1_in_channels: int, c1_channels: int, **kwargs: Any) -> None:
        """Build what refines."""
        super().__init__(**kwargs)
        assert c1_in_channels >= 0, f"c1_in_channels should be 0 or more, got {c1_in_channels}"
        self.c1_bottleneck = None
        width = self.channels
        if c1_in_channels > 0:
            self.c1_bottleneck = ConvModule(c1_in_channels, c1_channels, 1, **self.conv_options)
            width += c1_channels
        self.sep_bottleneck = nn.Sequential(
            self._separable(width, padding=1), self._separable(self.channels, padding=1)
        )

    def _separable(self, in_channels: int, padding: int, dilation: int = 1) -> nn.Module:
        return DepthwiseSeparableConvModule(
            in_channels,
            self.channels,
            3,
            padding=padding,
            dilation=dilation,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )

    def _branch(self, dilation: int) -> nn.Module:
        if dilation == 1:
            return super()._branch(dilation)
        return self._separable(self.in_channels, dilation, dilation)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps -> logits (N, out_channels, h, w), of the first one's size where it is read."""
        feats = self._forward_feature(inputs)
        if self.c1_bottleneck is not None:
            fine = self.c1_bottleneck(inputs[0])
            feats = torch.cat([resize(feats, fine.shape[2:], self.align_corners), fine], dim=1)
        return self.cls_seg(self.sep_bottleneck(feats))
