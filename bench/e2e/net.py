"""A network of the usual size in plain torch: a ResNet-50-shaped encoder and a feature pyramid, logits at stride 4.

28 million parameters with the default sizes, as Semantic FPN on ResNet-50. Weights are random: speed does not ask.

Source: He et al. 2015, arXiv:1512.03385 (bottleneck blocks); Kirillov et al. 2019, arXiv:1901.02446 (Semantic FPN).
"""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut; `width` channels inside, four times as many outside."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        """Make the layers."""
        super().__init__()
        self.narrow, self.middle = _conv(inputs, width, 1), _conv(width, width, 3, stride)
        self.wide = _conv(width, 4 * width, 1)
        same = stride == 1 and inputs == 4 * width
        self.shortcut = nn.Identity() if same else _conv(inputs, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, 4 width, H / stride, W / stride)."""
        inner = F.relu(self.middle(F.relu(self.narrow(x))))
        return F.relu(self.wide(inner) + self.shortcut(x))


class PyramidNet(nn.Module):
    """Images (N, 3, H, W) -> logits (N, num_classes, H / 4, W / 4).

    Args:
        num_classes: channels of the logits.
        width: channels inside the first stage.
        blocks: bottlenecks per stage, strides 4, 8, 16 and 32.
        pyramid: channels of the pyramid; its head has half as many.
    """

    def __init__(
        self,
        num_classes: int,
        width: int = 64,
        blocks: Sequence[int] = (3, 4, 6, 3),
        pyramid: int = 256,
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.stem = _conv(3, width, 7, 2)
        self.stages, channels = nn.ModuleList(), width
        for level, count in enumerate(blocks):
            inner = width << level
            layers = [Bottleneck(channels, inner, 1 if level == 0 else 2)]
            layers += [Bottleneck(4 * inner, inner, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*layers))
            channels = 4 * inner
        sides = [4 * width << level for level in range(len(blocks))]
        self.lateral = nn.ModuleList(nn.Conv2d(side, pyramid, 1) for side in sides)
        self.smooth = nn.ModuleList(_conv(pyramid, pyramid // 2, 3) for _ in sides)
        self.classify = nn.Conv2d(pyramid // 2, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Encode, add the levels from coarse to fine, sum them at stride 4, classify."""
        x = F.max_pool2d(F.relu(self.stem(images)), 3, 2, 1)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        sides: list[Tensor] = []
        heads: list[Tensor] = []
        for level, lateral, smooth in zip(
            levels[::-1], reversed(self.lateral), reversed(self.smooth), strict=True
        ):
            side = lateral(level)
            if sides:
                side = side + F.interpolate(sides[-1], side.shape[2:], mode="nearest")
            sides.append(side)
            head = F.relu(smooth(side))
            heads.append(F.interpolate(head, levels[0].shape[2:], mode="bilinear"))
        return self.classify(sum(heads[1:], start=heads[0]))
