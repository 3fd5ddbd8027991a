"""Heads that see the whole image: pooled context (PSPHead), and that with a feature pyramid (UPerHead)."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segfast.models.conv_module import ConvModule
from segfast.models.decode_heads.decode_head import BaseDecodeHead
from segfast.models.resize import resize
from segfast.registry import MODELS


class PyramidPooling(nn.ModuleList):
    """Average pools of several sizes, each through a 1x1 convolution, beside their input.

    Args:
        pool_scales: sizes of the pooled maps.
        in_channels: of the input.
        channels: after each pool.
        options: `conv_cfg`, `norm_cfg`, `act_cfg` of the convolutions.
        align_corners: of the resize back.
    """

    def __init__(
        self,
        pool_scales: Sequence[int],
        in_channels: int,
        channels: int,
        options: Mapping[str, Any],
        align_corners: bool,
    ) -> None:
        """Build the pools."""
        super().__init__(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(scale), ConvModule(in_channels, channels, 1, **options)
            )
            for scale in pool_scales
        )
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C + channels * number of pools, h, w)."""
        pools = [resize(pool(x), x.shape[2:], self.align_corners) for pool in self]
        return torch.cat([x, *pools], dim=1)


@MODELS.register_module()
class PSPHead(BaseDecodeHead):
    """Pyramid scene parsing.

    Source: Zhao et al. 2017, arXiv:1612.01105.

    Args:
        pool_scales: sizes of the pooled maps.
        **kwargs: see `BaseDecodeHead`.
    """

    def __init__(self, pool_scales: Sequence[int] = (1, 2, 3, 6), **kwargs: Any) -> None:
        """Build the pools and what mixes them."""
        super().__init__(**kwargs)
        is_list = isinstance(pool_scales, (list, tuple))
        assert is_list, f"pool_scales should be a list, got {pool_scales!r}"
        self.pool_scales = pool_scales
        pools = (pool_scales, self.in_channels, self.channels)
        self.psp_modules = PyramidPooling(*pools, self.conv_options, self.align_corners)
        width = self.in_channels + len(pool_scales) * self.channels
        self.bottleneck = ConvModule(width, self.channels, 3, padding=1, **self.conv_options)

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps -> (N, channels, h, w), what the classifier reads."""
        return self.bottleneck(self.psp_modules(self._transform_inputs(inputs)))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps -> logits (N, out_channels, h, w)."""
        return self.cls_seg(self._forward_feature(inputs))


@MODELS.register_module()
class UPerHead(BaseDecodeHead):
    """Unified perceptual parsing: pooled context on top of a feature pyramid, all levels mixed.

    Source: Xiao et al. 2018, arXiv:1807.10221.

    Args:
        pool_scales: sizes of the pooled maps.
        **kwargs: see `BaseDecodeHead`; `in_channels` and `in_index` are lists.
    """

    def __init__(self, pool_scales: Sequence[int] = (1, 2, 3, 6), **kwargs: Any) -> None:
        """Build the pools and the pyramid."""
        super().__init__(input_transform="multiple_select", **kwargs)
        options, width = self.conv_options, self.channels
        *finer, coarsest = self.in_channels
        pools = (pool_scales, coarsest, width)
        self.psp_modules = PyramidPooling(*pools, options, self.align_corners)
        context = coarsest + len(pool_scales) * width
        self.bottleneck = ConvModule(context, width, 3, padding=1, **options)
        self.lateral_convs = nn.ModuleList(ConvModule(n, width, 1, **options) for n in finer)
        self.fpn_convs = nn.ModuleList(
            ConvModule(width, width, 3, padding=1, **options) for _ in finer
        )
        levels = len(self.in_channels) * width
        self.fpn_bottleneck = ConvModule(levels, width, 3, padding=1, **options)

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps, the finest first -> (N, channels, h, w), what the classifier reads."""
        maps = self._transform_inputs(inputs)
        size = maps[0].shape[2:]
        coarser = self.bottleneck(self.psp_modules(maps[-1]))
        levels = [coarser]
        steps = list(zip(maps[:-1], self.lateral_convs, self.fpn_convs, strict=True))
        for x, lateral, smooth in reversed(steps):
            coarser = lateral(x) + resize(coarser, x.shape[2:], self.align_corners)
            levels.insert(0, smooth(coarser))
        return self.fpn_bottleneck(
            torch.cat([resize(level, size, self.align_corners) for level in levels], dim=1)
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps -> logits (N, out_channels, h, w) at the finest one's size."""
        return self.cls_seg(self._forward_feature(inputs))
