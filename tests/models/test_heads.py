"""The decode heads and their blocks: shapes, options, the order in which SegformerHead computes, parameter names."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segfast.errors import ConfigError
from segfast.models import (
    ASPPHead,
    DepthwiseSeparableASPPHead,
    DepthwiseSeparableFCNHead,
    FCNHead,
    PSPHead,
    SegformerHead,
    UPerHead,
)
from segfast.models.conv_module import ConvModule, DepthwiseSeparableConvModule

BN = {"type": "BN", "requires_grad": True, "momentum": 0.01}


@pytest.mark.parametrize(
    ("options", "kernel", "padding", "count"),
    [
        ({}, 3, 1, 2),
        ({"concat_input": False}, 3, 1, 2),
        ({"kernel_size": 1}, 1, 0, 2),
        ({"num_convs": 1, "dilation": 4}, 3, 4, 1),
        ({"num_convs": 3, "norm_cfg": BN}, 3, 1, 3),
    ],
)
def test_fcn_head(options, kernel, padding, count):
    head = FCNHead(in_channels=8, channels=4, num_classes=19, **options)
    assert len(head.convs) == count
    assert all((c.kernel_size, c.padding) == ((kernel, kernel), padding) for c in head.convs)
    assert hasattr(head, "conv_cat") is head.concat_input
    if head.concat_input:
        assert head.conv_cat.in_channels == 12
    blocks = [m for m in head.modules() if isinstance(m, ConvModule)]
    assert all(m.with_norm is ("norm_cfg" in options) for m in blocks)
    assert head([torch.randn(2, 8, 23, 21)]).shape == (2, 19, 23, 21)


def test_fcn_head_without_convolutions():
    options = {"in_channels": 8, "num_classes": 19, "num_convs": 0, "concat_input": False}
    head = FCNHead(channels=8, **options)
    assert isinstance(head.convs, nn.Identity)
    assert head([torch.randn(1, 8, 5, 5)]).shape == (1, 19, 5, 5)
    with pytest.raises(AssertionError, match="should be channels"):
        FCNHead(channels=4, **options)
    with pytest.raises(AssertionError, match="num_convs"):
        FCNHead(num_classes=19, num_convs=-1)


@pytest.mark.parametrize("concat_input", [True, False])
def test_separable_fcn_head(concat_input):
    head = DepthwiseSeparableFCNHead(
        in_channels=16, channels=12, num_classes=19, concat_input=concat_input, norm_cfg=BN
    )
    assert [type(conv) for conv in head.convs] == [DepthwiseSeparableConvModule] * 2
    assert head.convs[0].depthwise_conv.conv.groups == 16
    assert head([torch.rand(2, 16, 8, 8)]).shape == (2, 19, 8, 8)


def test_parameters_have_mmcvs_names():
    head = FCNHead(
        in_channels=8, channels=4, num_classes=3, num_convs=1, norm_cfg={"type": "SyncBN"}
    )
    names = {name.rpartition(".")[0] for name in head.state_dict()}
    assert names == {"conv_seg", "convs.0.conv", "convs.0.bn", "conv_cat.conv", "conv_cat.bn"}
    head = SegformerHead(in_channels=[2, 3], in_index=[0, 1], channels=4, num_classes=3)
    names = {name.rpartition(".")[0] for name in head.state_dict()}
    assert names == {"conv_seg", "convs.0.conv", "convs.1.conv", "fusion_conv.conv"}


@pytest.mark.parametrize("norm_cfg", [None, BN])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_segformer_head_is_the_textbook_one(norm_cfg, mode, align_corners):
    head = SegformerHead(
        mode,
        in_channels=[4, 6, 8],
        in_index=[0, 1, 2],
        channels=10,
        num_classes=5,
        norm_cfg=norm_cfg,
        align_corners=align_corners,
        dropout_ratio=0,
    )
    if norm_cfg is None:
        nn.init.normal_(head.fusion_conv.conv.bias)
    maps = [torch.randn(2, c, n, n + 2) for c, n in ((4, 16), (6, 8), (8, 5))]
    corners = align_corners if mode == "bilinear" else None
    resized = [
        F.interpolate(conv(x), maps[0].shape[2:], mode=mode, align_corners=corners)
        for conv, x in zip(head.convs, maps, strict=True)
    ]
    want = head.cls_seg(head.fusion_conv(torch.cat(resized, dim=1)))
    torch.testing.assert_close(head(maps), want, rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError, match="not 'area'"):
        SegformerHead("area", in_channels=[4], in_index=[0], channels=4, num_classes=2)


MAPS = [(4, 16), (6, 8), (8, 5)]  # channels and size of each


@pytest.mark.parametrize("norm_cfg", [None, BN])
@pytest.mark.parametrize(
    ("kind", "options", "size"),
    [
        (PSPHead, {"in_channels": 8, "pool_scales": (1, 2)}, 5),
        (UPerHead, {"in_channels": [4, 6, 8], "in_index": [0, 1, 2]}, 16),
        (UPerHead, {"in_channels": [8], "in_index": [2]}, 5),
        (ASPPHead, {"in_channels": 6, "in_index": 1, "dilations": (1, 2, 3)}, 8),
        (DepthwiseSeparableASPPHead, {"in_channels": 8, "c1_in_channels": 4, "c1_channels": 3}, 16),
        (DepthwiseSeparableASPPHead, {"in_channels": 8, "c1_in_channels": 0, "c1_channels": 3}, 5),
    ],
)
def test_context_heads_train_every_parameter(kind, options, size, norm_cfg):
    head = kind(channels=8, num_classes=5, norm_cfg=norm_cfg, **options)
    logits = head([torch.randn(2, c, n, n + 1) for c, n in MAPS])
    assert logits.shape == (2, 5, size, size + 1)
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for name, p in head.named_parameters() if "weight" in name)


def test_context_heads_see_the_whole_image():
    for kind in (PSPHead, ASPPHead):
        head = kind(in_channels=4, channels=4, num_classes=3).eval()
        x = torch.randn(1, 4, 80, 80, requires_grad=True)
        head([x])[0, :, 0, 0].sum().backward()
        assert x.grad[0, :, -1, -1].abs().sum() > 0
    with pytest.raises(AssertionError, match="should be a list"):
        PSPHead(3, in_channels=4, channels=4, num_classes=3)
    with pytest.raises(AssertionError, match="should be a list"):
        ASPPHead(3, in_channels=4, channels=4, num_classes=3)


def test_separable_branches():
    options = {
        "in_channels": 8,
        "channels": 4,
        "num_classes": 3,
        "c1_in_channels": 0,
        "c1_channels": 0,
    }
    head = DepthwiseSeparableASPPHead(dilations=(1, 6), **options)
    assert [type(branch) for branch in head.aspp_modules] == [
        ConvModule,
        DepthwiseSeparableConvModule,
    ]
    assert head.aspp_modules[1].depthwise_conv.conv.dilation == (6, 6)


def test_separable_heads_choose_the_activation_in_between():
    options = {"in_channels": 8, "channels": 4, "num_classes": 3}
    between = [
        DepthwiseSeparableFCNHead(**options, **more).convs[0].depthwise_conv
        for more in ({}, {"dw_act_cfg": "default"}, {"dw_act_cfg": {"type": "GELU"}})
    ]
    assert [conv.with_activation for conv in between] == [False, True, True]
    assert isinstance(between[2].activate, nn.GELU)


def test_conv_module_options():
    plain = ConvModule(3, 4, 3, norm_cfg=None, act_cfg=None)
    assert plain.conv.bias is not None
    assert plain.norm is None
    assert (plain(torch.randn(1, 3, 8, 8)) < 0).any()
    for norm, kind in (
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.BatchNorm2d),
        ("IN", nn.InstanceNorm2d),
    ):
        assert type(ConvModule(3, 4, 1, norm_cfg={"type": norm}).norm) is kind
    block = ConvModule(4, 4, 1, norm_cfg={"type": "GN", "num_groups": 2, "requires_grad": False})
    assert block.norm is block.gn
    assert block.gn.num_groups == 2
    assert not any(p.requires_grad for p in block.gn.parameters())
    assert block.conv.bias is None
    other = {"type": "torch.nn.LazyBatchNorm2d"}
    assert isinstance(
        ConvModule(4, 4, 1, norm_cfg=None, act_cfg={"type": "GELU"}).activate, nn.GELU
    )
    with pytest.raises(ConfigError, match=r"norm_cfg\.num_features"):
        ConvModule(4, 4, 1, norm_cfg=other)
    with pytest.raises(
        ConfigError, match=r"^norm_cfg\.type: there is no layer 'SycBN' \(did you mean SyncBN"
    ):
        ConvModule(4, 4, 1, norm_cfg={"type": "SycBN"})
    with pytest.raises(ConfigError, match=r"^act_cfg\.inplce"):
        ConvModule(4, 4, 1, act_cfg={"type": "ReLU", "inplce": True})
