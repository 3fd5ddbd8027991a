"""Convolution, norm and activation in one block, from configs; parameters named as in MMCV, so its checkpoints fit."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from segfast.errors import ConfigError
from segfast.registry import MODELS, did_you_mean

RELU: Mapping = MappingProxyType({"type": "ReLU"})
_LAYERS: dict[str, type[nn.Module]] = {
    "Conv": nn.Conv2d, "Conv2d": nn.Conv2d,
    "BN": nn.BatchNorm2d, "BN2d": nn.BatchNorm2d, "IN": nn.InstanceNorm2d, "IN2d": nn.InstanceNorm2d,
    "ReLU": nn.ReLU, "ReLU6": nn.ReLU6, "LeakyReLU": nn.LeakyReLU, "PReLU": nn.PReLU, "RReLU": nn.RReLU, "ELU": nn.ELU,
    "GELU": nn.GELU, "SiLU": nn.SiLU, "Swish": nn.SiLU, "Mish": nn.Mish, "HSwish": nn.Hardswish, "Sigmoid": nn.Sigmoid,
    "HSigmoid": nn.Hardsigmoid, "Tanh": nn.Tanh,
}  # fmt: skip
_OUT_OF_PLACE = {"PReLU", "GELU", "Sigmoid", "HSigmoid", "Tanh"}


def build_layer(cfg: Mapping[str, Any], path: str, **arguments: Any) -> nn.Module:
    """A layer out of `dict(type=...)`: a short name ("BN"), a registered one, a dotted path or a class.

    Raises:
        ConfigError: there is no such layer, or it has no such argument.
    """
    kind = cfg.get("type")
    if isinstance(kind, str) and "." not in kind and kind not in MODELS:
        if kind not in _LAYERS:
            hint = did_you_mean(kind, [*_LAYERS, "SyncBN", "GN"])
            known = hint or " (a dotted path such as 'torch.nn.BatchNorm2d' works too)"
            raise ConfigError(f"{path}.type", f"there is no layer {kind!r}{known}")
        kind = _LAYERS[kind]
    return MODELS.build({**arguments, **cfg, "type": kind}, path=path)


def build_norm(cfg: Mapping[str, Any], channels: int) -> tuple[str, nn.Module]:
    """A norm layer of that many channels, and the name it has inside a block.

    "SyncBN" counts over all processes where there are several, and is a plain batch norm otherwise.
    `requires_grad=False` freezes its factors.
    """
    cfg = {"eps": 1e-5, **cfg}
    trained = cfg.pop("requires_grad", True)
    kind = cfg.get("type")
    if kind == "GN":
        layer: nn.Module = build_layer(
            {**cfg, "type": nn.GroupNorm}, "norm_cfg", num_channels=channels
        )
    elif kind == "SyncBN":
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        sync = nn.SyncBatchNorm if several else nn.BatchNorm2d
        layer = build_layer({**cfg, "type": sync}, "norm_cfg", num_features=channels)
    else:
        layer = build_layer(cfg, "norm_cfg", num_features=channels)
    for parameter in layer.parameters():
        parameter.requires_grad = trained
    short: dict[Any, str] = {"GN": "gn", "IN": "in", "IN2d": "in"}
    return short.get(kind, "bn"), layer


class ConvModule(nn.Module):
    """A convolution, perhaps a norm, perhaps an activation.

    Kaiming initialisation, no bias where a norm follows.

    Args:
        in_channels: of the convolution, as are all arguments up to `groups`.
        out_channels: see there.
        kernel_size: see there.
        stride: see there.
        padding: see there.
        dilation: see there.
        groups: see there.
        bias: "auto" for a bias exactly where there is no norm.
        conv_cfg: `dict(type=...)` of another convolution.
        norm_cfg: for example dict(type="BN"); None for no norm.
        act_cfg: for example dict(type="ReLU"); None for no activation.
        inplace: let the activation overwrite its input.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool | str = "auto",
        conv_cfg: Mapping | None = None,
        norm_cfg: Mapping | None = None,
        act_cfg: Mapping | None = RELU,
        inplace: bool = True,
    ) -> None:
        """Build and initialise the layers."""
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.padding = padding
        self.with_norm = norm_cfg is not None
        self.with_activation = act_cfg is not None
        conv: Any = build_layer(
            conv_cfg or {"type": "Conv2d"},
            "conv_cfg",
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=not self.with_norm if bias == "auto" else bias,
        )
        self.conv = conv
        self.kernel_size = conv.kernel_size
        self.norm_name = ""
        if norm_cfg is not None:
            self.norm_name, norm = build_norm(norm_cfg, out_channels)
            self.add_module(self.norm_name, norm)
        if act_cfg is not None:
            options = {} if act_cfg.get("type") in _OUT_OF_PLACE else {"inplace": inplace}
            self.activate: Callable = build_layer(act_cfg, "act_cfg", **options)
        leaky = act_cfg is not None and act_cfg.get("type") == "LeakyReLU"
        slope = act_cfg.get("negative_slope", 0.01) if leaky and act_cfg else 0.0
        nn.init.kaiming_normal_(conv.weight, a=slope, mode="fan_out", nonlinearity="leaky_relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)

    @property
    def norm(self) -> nn.Module | None:
        """The norm layer."""
        return getattr(self, self.norm_name) if self.norm_name else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, h, w) -> (N, out_channels, h', w')."""
        return self.finish(self.conv(x))

    def finish(self, x: Tensor) -> Tensor:
        """Norm and activation of what the convolution gave."""
        if self.norm is not None:
            x = self.norm(x)
        return self.activate(x) if self.with_activation else x


class DepthwiseSeparableConvModule(nn.Module):
    """A `ConvModule` per channel, then a 1x1 one across channels.

    Args:
        in_channels: of the first, which has as many groups.
        out_channels: of the second.
        kernel_size: of the first, as `stride`, `padding`, `dilation`.
        stride: see there.
        padding: see there.
        dilation: see there.
        norm_cfg: of both.
        act_cfg: of both.
        dw_act_cfg: of the first, unless "default".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        norm_cfg: Mapping | None = None,
        act_cfg: Mapping | None = RELU,
        dw_act_cfg: Mapping | str | None = "default",
    ) -> None:
        """Build both convolutions."""
        super().__init__()
        self.depthwise_conv = ConvModule(
            in_channels,
            in_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups=in_channels,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg if isinstance(dw_act_cfg, str) else dw_act_cfg,
        )
        self.pointwise_conv = ConvModule(
            in_channels, out_channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, h, w) -> (N, out_channels, h', w')."""
        return self.pointwise_conv(self.depthwise_conv(x))
