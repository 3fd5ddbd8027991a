"""The built-in network: small enough to learn on a laptop's CPU in minutes."""

# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segfast.registry import MODELS


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    """relu(x + two 3x3 convolutions of x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(channels, channels),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same shape."""
        return F.relu(x + self.body(x))


class _Merge(nn.Module):
    """Brings coarse features to the finer ones' size, puts both side by side, and mixes."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.mix = _conv(coarse + fine, fine)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(N, A, h, w) and (N, B, H, W) -> (N, B, H, W)."""
        up = F.interpolate(coarse, fine.shape[-2:], mode="bilinear")
        return self.mix(torch.cat([up, fine], dim=1))


@MODELS.register_module()
class SegNetS(nn.Module):
    """A small U-shaped network, logits at stride 4.

    Strides 2, 4, 8 and 16 have 1, 2, 4 and 6 times `width` channels, with one residual block each
    from stride 4 on; then back to stride 4. With width 16 and 11 classes: 0.46 million parameters,
    0.5 giga multiply-adds for a 256 x 256 image.

    Args:
        num_classes: output channels.
        in_channels: image channels.
        width: channels at stride 2.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 16) -> None:
        """Build the layers, with torch's own initialisation."""
        super().__init__()
        c2, c4, c8, c16 = width, 2 * width, 4 * width, 6 * width
        self.stem = _conv(in_channels, c2, stride=2)
        self.stage4 = nn.Sequential(_conv(c2, c4, stride=2), _Residual(c4))
        self.stage8 = nn.Sequential(_conv(c4, c8, stride=2), _Residual(c8))
        self.stage16 = nn.Sequential(_conv(c8, c16, stride=2), _Residual(c16))
        self.merge8 = _Merge(c16, c8)
        self.merge4 = _Merge(c8, c4)
        self.classify = nn.Conv2d(c4, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits.

        Args:
            images: (N, C, H, W), any H and W.

        Returns:
            (N, num_classes, ceil(H / 4), ceil(W / 4)) logits.
        """
        x4 = self.stage4(self.stem(images))
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        return self.classify(self.merge4(self.merge8(x16, x8), x4))
