"""The two blocks of a ResNet, and a stage of them; parameters named as in torchvision."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segfast.models.conv_module import build_norm


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + body(x)).

    Args:
        downsample: the shortcut where shapes change, or None.
        recompute: keep no activations for the backward pass, compute them again.
    """

    expansion: int

    def __init__(self, downsample: nn.Module | None, recompute: bool) -> None:
        """Keep what both kinds of block have."""
        super().__init__()
        self.downsample = downsample
        self.recompute = recompute

    def body(self, x: Tensor) -> Tensor:
        """The convolutions, without the last activation."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', h', w')."""
        if self.recompute and x.requires_grad:
            return F.relu(checkpoint(self._add, x, use_reentrant=False))
        return F.relu(self._add(x))

    def _add(self, x: Tensor) -> Tensor:
        return self.body(x) + (x if self.downsample is None else self.downsample(x))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions.

    Args:
        in_channels: of the input.
        channels: of both convolutions.
        stride: of the first.
        dilation: of the first.
        downsample: see `ResidualBlock`.
        style: without effect here.
        norm_cfg: of the norms.
        recompute: see `ResidualBlock`.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        dilation: int,
        downsample: nn.Module | None,
        style: str,
        norm_cfg: Mapping,
        recompute: bool,
    ) -> None:
        """Build the layers."""
        super().__init__(downsample, recompute)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, dilation, dilation, bias=False)
        self.bn1 = build_norm(norm_cfg, channels)[1]
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = build_norm(norm_cfg, channels)[1]

    @property
    def last_norm(self) -> nn.Module:
        """The norm before the addition."""
        return self.bn2

    def body(self, x: Tensor) -> Tensor:
        """See `ResidualBlock`."""
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))


class Bottleneck(ResidualBlock):
    """A 1x1, a 3x3 and a 1x1 convolution, the last with four times the channels.

    Args:
        in_channels: of the input.
        channels: of the first two convolutions.
        stride: of the 3x3 convolution ("pytorch") or the first one ("caffe").
        dilation: of the 3x3 convolution.
        downsample: see `ResidualBlock`.
        style: "pytorch" or "caffe".
        norm_cfg: of the norms.
        recompute: see `ResidualBlock`.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        dilation: int,
        downsample: nn.Module | None,
        style: str,
        norm_cfg: Mapping,
        recompute: bool,
    ) -> None:
        """Build the layers."""
        super().__init__(downsample, recompute)
        first, second = (stride, 1) if style == "caffe" else (1, stride)
        wide = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, first, bias=False)
        self.bn1 = build_norm(norm_cfg, channels)[1]
        self.conv2 = nn.Conv2d(channels, channels, 3, second, dilation, dilation, bias=False)
        self.bn2 = build_norm(norm_cfg, channels)[1]
        self.conv3 = nn.Conv2d(channels, wide, 1, bias=False)
        self.bn3 = build_norm(norm_cfg, wide)[1]

    @property
    def last_norm(self) -> nn.Module:
        """The norm before the addition."""
        return self.bn3

    def body(self, x: Tensor) -> Tensor:
        """See `ResidualBlock`."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


def make_stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    channels: int,
    stride: int,
    dilations: Sequence[int],
    avg_down: bool,
    style: str,
    norm_cfg: Mapping,
    recompute: bool,
) -> nn.Sequential:
    """One block per dilation; the first one changes size and channels.

    Args:
        block: their class.
        in_channels: of the input.
        channels: of the blocks, before `expansion`.
        stride: of the first block.
        dilations: of every block.
        avg_down: pool in the shortcut, instead of a convolution that skips pixels.
        style: see `Bottleneck`.
        norm_cfg: of the norms.
        recompute: see `ResidualBlock`.
    """
    wide = channels * block.expansion
    shortcut: list[nn.Module] = []
    if stride != 1 or in_channels != wide:
        if avg_down:
            shortcut.append(nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False))
        step = 1 if avg_down else stride
        shortcut += [
            nn.Conv2d(in_channels, wide, 1, step, bias=False),
            build_norm(norm_cfg, wide)[1],
        ]
    rest = (style, norm_cfg, recompute)
    downsample = nn.Sequential(*shortcut) if shortcut else None
    blocks = [block(in_channels, channels, stride, dilations[0], downsample, *rest)]
    blocks += [block(wide, channels, 1, dilation, None, *rest) for dilation in dilations[1:]]
    return nn.Sequential(*blocks)
