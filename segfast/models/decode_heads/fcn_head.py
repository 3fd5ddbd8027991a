"""FCNHead: a few convolutions and a classifier."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segfast.models.conv_module import ConvModule, DepthwiseSeparableConvModule
from segfast.models.decode_heads.decode_head import BaseDecodeHead
from segfast.registry import MODELS


@MODELS.register_module()
class FCNHead(BaseDecodeHead):
    """Fully convolutional head.

    Source: Long, Shelhamer, Darrell 2015, arXiv:1411.4038; the input beside the convolutions'
    output as in MMSegmentation.

    Args:
        num_convs: convolutions before the classifier.
        kernel_size: of those.
        concat_input: mix their output with the input in one more convolution.
        dilation: of the convolutions.
        **kwargs: see `BaseDecodeHead`.
    """

    def __init__(
        self,
        num_convs: int = 2,
        kernel_size: int = 3,
        concat_input: bool = True,
        dilation: int = 1,
        **kwargs: Any,
    ) -> None:
        """Build the convolutions."""
        assert num_convs >= 0, f"num_convs should be 0 or more, got {num_convs}"
        assert isinstance(dilation, int), f"dilation should be an int, got {dilation!r}"
        assert dilation > 0, f"dilation should be 1 or more, got {dilation}"
        super().__init__(**kwargs)
        if num_convs == 0:
            assert self.in_channels == self.channels, (
                f"without convolutions in_channels ({self.in_channels}) should be channels "
                f"({self.channels})"
            )
        self.num_convs = num_convs
        self.kernel_size = kernel_size
        self.concat_input = concat_input
        convs = [
            self._conv(self.channels if i else self.in_channels, kernel_size, dilation)
            for i in range(num_convs)
        ]
        self.convs: nn.Module = nn.Sequential(*convs) if convs else nn.Identity()
        if concat_input:
            self.conv_cat = self._conv(self.in_channels + self.channels, kernel_size, 1)

    def _conv(self, in_channels: int, kernel_size: int, dilation: int) -> nn.Module:
        return ConvModule(
            in_channels,
            self.channels,
            kernel_size,
            padding=kernel_size // 2 * dilation,
            dilation=dilation,
            **self.conv_options,
        )

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps -> (N, channels, h, w), what the classifier reads."""
        x = self._transform_inputs(inputs)
        feats = self.convs(x)
        return self.conv_cat(torch.cat([x, feats], dim=1)) if self.concat_input else feats

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps -> logits (N, out_channels, h, w)."""
        return self.cls_seg(self._forward_feature(inputs))


@MODELS.register_module()
class DepthwiseSeparableFCNHead(FCNHead):
    """As `FCNHead`, with depthwise separable convolutions (Fast-SCNN, arXiv:1902.04502).

    Args:
        dw_act_cfg: activation between the two halves of a convolution, None for none, "default"
            for `act_cfg`.
        **kwargs: see `FCNHead`.
    """

    def __init__(self, dw_act_cfg: Mapping | str | None = None, **kwargs: Any) -> None:
        """Build the convolutions."""
        self.dw_act_cfg = dw_act_cfg
        super().__init__(**kwargs)

    def _conv(self, in_channels: int, kernel_size: int, dilation: int) -> nn.Module:
        return DepthwiseSeparableConvModule(
            in_channels,
            self.channels,
            kernel_size,
            padding=kernel_size // 2 * dilation,
            dilation=dilation,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
            dw_act_cfg=self.dw_act_cfg,
        )
