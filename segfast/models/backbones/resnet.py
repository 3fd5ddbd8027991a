"""ResNet with strides traded for dilations, as segmentation uses it; MMSegmentation's arguments and parameter names."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from segfast.errors import ConfigError
from segfast.models.backbones.residual_blocks import (
    BasicBlock,
    Bottleneck,
    ResidualBlock,
    make_stage,
)
from segfast.models.conv_module import build_norm
from segfast.models.encoder_weights import load_weights
from segfast.registry import MODELS

_BATCH_NORM: Mapping = MappingProxyType({"type": "BN", "requires_grad": True})
_BLOCKS: dict[int, tuple[Any, tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


@MODELS.register_module()
class ResNet(nn.Module):
    """ResNet, feature maps of its stages.

    Source: He et al. 2016, arXiv:1512.03385; the stems and shortcuts of the variants c and d, He et
    al. 2019, arXiv:1812.01187.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: of the images.
        stem_channels: after the stem.
        base_channels: of the first stage; doubled from stage to stage.
        num_stages: how many stages to build.
        strides: of every stage's first block.
        dilations: of every stage's blocks.
        out_indices: stages whose feature maps are returned.
        style: "pytorch" or "caffe": which convolution of a bottleneck has the stride.
        deep_stem: three 3x3 convolutions for one 7x7.
        avg_down: pool in the shortcuts.
        frozen_stages: the stem (0) and this many stages neither learn nor count.
        norm_cfg: of the norms.
        norm_eval: keep the batch norms' statistics as they are.
        multi_grid: dilations of the last stage's blocks.
        contract_dilation: halve the dilation of a dilated stage's first block.
        with_cp: recompute activations in the backward pass instead of keeping them.
        zero_init_residual: let every block start as its shortcut.
        pretrained: local file of weights.
        init_cfg: dict(type="Pretrained", checkpoint=...), the same as `pretrained`.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int = 64,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        style: str = "pytorch",
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        norm_cfg: Mapping = _BATCH_NORM,
        norm_eval: bool = False,
        multi_grid: Sequence[int] | None = None,
        contract_dilation: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        pretrained: str | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        """Build the stages, initialise or load them.

        Raises:
            ConfigError: an unknown depth; weights that are not a local file.
            CheckpointError: weights that do not fit.
        """
        super().__init__()
        if depth not in _BLOCKS:
            raise ConfigError("depth", f"there is a ResNet of depth {list(_BLOCKS)}, not {depth}")
        assert 1 <= num_stages <= 4, f"num_stages is 1 to 4, got {num_stages}"
        assert len(strides) == len(dilations) == num_stages, (
            f"strides and dilations should have num_stages ({num_stages}) values each"
        )
        assert max(out_indices) < num_stages, f"out_indices {out_indices} beyond the last stage"
        assert style in ("pytorch", "caffe"), f"style is 'pytorch' or 'caffe', not {style!r}"
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.deep_stem = deep_stem
        self._make_stem(in_channels, stem_channels, norm_cfg)
        block, counts = _BLOCKS[depth]
        width = stem_channels
        self.channels: list[int] = []
        self.stages: list[str] = []
        for i in range(num_stages):
            spread = [dilations[i]] * counts[i]
            if dilations[i] > 1 and contract_dilation:
                spread[0] //= 2
            if multi_grid is not None and i == num_stages - 1:
                assert len(multi_grid) >= counts[i], f"multi_grid needs {counts[i]} values"
                spread = list(multi_grid[: counts[i]])
            narrow = base_channels * 2**i
            options = (strides[i], spread, avg_down, style, norm_cfg, with_cp)
            self.add_module(f"layer{i + 1}", make_stage(block, width, narrow, *options))
            width = narrow * block.expansion
            self.stages.append(f"layer{i + 1}")
            if i in out_indices:
                self.channels.append(width)
        self._initialise(zero_init_residual)
        weights = pretrained or _pretrained_of(init_cfg)
        if weights is not None:
            if "://" in weights:
                problem = f"{weights} is not downloaded: give a local file, or None"
                raise ConfigError("pretrained", problem)
            load_weights(self, weights, type(self).__name__)
        self._freeze()

    def _make_stem(self, in_channels: int, channels: int, norm_cfg: Mapping) -> None:
        if self.deep_stem:
            half = channels // 2
            layers: list[nn.Module] = []
            for a, b, stride in ((in_channels, half, 2), (half, half, 1), (half, channels, 1)):
                layers += [
                    nn.Conv2d(a, b, 3, stride, 1, bias=False),
                    build_norm(norm_cfg, b)[1],
                    nn.ReLU(inplace=True),
                ]
            self.stem = nn.Sequential(*layers)
        else:
            self.conv1 = nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False)
            self.bn1 = build_norm(norm_cfg, channels)[1]
            self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)

    def _initialise(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, ResidualBlock) and zero_init_residual:
                nn.init.zeros_(module.last_norm.weight)  # type: ignore[union-attr,arg-type]

    def _freeze(self) -> None:
        """Stop learning where `frozen_stages` says so."""
        if self.frozen_stages < 0:
            return
        stem = [self.stem] if self.deep_stem else [self.conv1, self.bn1]
        stages = [getattr(self, name) for name in self.stages[: self.frozen_stages]]
        for module in [*stem, *stages]:
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "ResNet":
        """As `nn.Module.train`, but what is frozen stays in evaluation mode."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, C, H, W) -> the feature maps of the stages in `out_indices`."""
        x = self.stem(x) if self.deep_stem else self.relu(self.bn1(self.conv1(x)))
        x = self.maxpool(x)
        maps = []
        for i, name in enumerate(self.stages):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                maps.append(x)
        return tuple(maps)


@MODELS.register_module()
class ResNetV1c(ResNet):
    """ResNet with three 3x3 convolutions for a stem.

    Args:
        **kwargs: see `ResNet`.
    """

    def __init__(self, **kwargs: Any) -> None:
        """See `ResNet`."""
        super().__init__(**{**kwargs, "deep_stem": True, "avg_down": False})


@MODELS.register_module()
class ResNetV1d(ResNet):
    """As `ResNetV1c`, with pooling in the shortcuts.

    Args:
        **kwargs: see `ResNet`.
    """

    def __init__(self, **kwargs: Any) -> None:
        """See `ResNet`."""
        super().__init__(**{**kwargs, "deep_stem": True, "avg_down": True})


def _pretrained_of(init_cfg: Any) -> str | None:
    """The file that an `init_cfg` of type Pretrained names."""
    if isinstance(init_cfg, Mapping) and init_cfg.get("type") == "Pretrained":
        return init_cfg.get("checkpoint")
    return None
