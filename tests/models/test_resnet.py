"""ResNet: shapes by strides and dilations, torchvision's names, what is frozen, weights from files."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from segfast.errors import CheckpointError, ConfigError
from segfast.inference import forget_pretrained
from segfast.models import EncoderDecoder, ResNet, ResNetV1c, ResNetV1d
from segfast.models.backbones.residual_blocks import BasicBlock
from segfast.registry import MODELS

SMALL = {"depth": 18, "base_channels": 4, "stem_channels": 8}


@pytest.mark.parametrize("kind", [ResNet, ResNetV1c, ResNetV1d])
@pytest.mark.parametrize(
    ("strides", "dilations", "sizes"),
    [((1, 2, 2, 2), (1, 1, 1, 1), [16, 8, 4, 2]), ((1, 2, 1, 1), (1, 1, 2, 4), [16, 8, 8, 8])],
)
def test_sizes_and_channels(kind, strides, dilations, sizes):
    net = kind(**SMALL, strides=strides, dilations=dilations, contract_dilation=True)
    maps = net(torch.randn(2, 3, 64, 64))
    assert [x.shape[2:] for x in maps] == [(n, n) for n in sizes]
    assert [x.shape[1] for x in maps] == net.channels == [4, 8, 16, 32]
    first, *rest = net.layer4
    assert first.conv1.dilation[0] == max(dilations[3] // 2, 1)
    assert all(block.conv1.dilation[0] == dilations[3] for block in rest)


def test_deeper_ones_and_chosen_stages():
    net = ResNet(50, base_channels=4, stem_channels=8, out_indices=(1, 3), multi_grid=(1, 2, 4))
    assert [x.shape[1] for x in net(torch.randn(2, 3, 32, 32))] == net.channels == [32, 128]
    assert [block.conv2.dilation[0] for block in net.layer4] == [1, 2, 4]
    assert sum(isinstance(m, nn.Conv2d) for m in ResNet(101, base_channels=1).modules()) == 104
    assert net.layer2[0].conv2.stride == (2, 2)
    assert ResNet(50, base_channels=1, style="caffe").layer2[0].conv1.stride == (2, 2)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"depth": 20}, r"^m\.depth: .*18, 34"),
        ({"strides": (1, 2)}, "num_stages"),
        ({"num_stages": 3, "strides": (1, 2, 2), "dilations": (1, 1, 1)}, "beyond the last stage"),
        ({"style": "tf"}, "not 'tf'"),
        ({"dept": 18}, "did you mean depth"),
        ({"pretrained": "open-mmlab://resnet50_v1c"}, "not downloaded: give a local file"),
    ],
)
def test_wrong_arguments(args, text):
    with pytest.raises(ConfigError, match=text):
        MODELS.build({"type": "ResNet", **SMALL, **args}, "m")


def test_names_are_torchvisions():
    names = set(ResNet(50, base_channels=1, stem_channels=2).state_dict())
    some = {"conv1.weight", "bn1.running_mean", "layer1.0.conv3.weight", "layer1.0.downsample.0.weight",
            "layer1.0.downsample.1.bias", "layer3.5.bn2.weight", "layer4.2.bn3.num_batches_tracked"}  # fmt: skip
    assert some <= names
    assert len(names) == 318  # torchvision's resnet50 has 320, two of them the classifier's
    names = set(ResNetV1c(**SMALL).state_dict())
    assert {"stem.0.weight", "stem.4.bias", "stem.7.running_var"} <= names
    assert "layer2.0.downsample.1.weight" in ResNetV1d(**SMALL).state_dict()  # 0 is the pooling


def test_blocks_start_as_their_shortcuts():
    net = ResNet(**SMALL)
    assert not any(
        block.bn2.weight.any() for block in net.modules() if isinstance(block, BasicBlock)
    )
    assert ResNet(**SMALL, zero_init_residual=False).layer1[0].bn2.weight.all()


def test_recomputing_gives_the_same_gradients():
    nets = [
        ResNetV1c(**SMALL, with_cp=with_cp, zero_init_residual=False) for with_cp in (False, True)
    ]
    nets[1].load_state_dict(nets[0].state_dict())
    images = torch.randn(2, 3, 32, 32)
    for net in nets:
        net(images)[-1].square().sum().backward()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_frozen_parts_stay_frozen():
    for kind, stem in ((ResNet, "conv1"), (ResNetV1c, "stem")):
        net = kind(**SMALL, frozen_stages=1).train()
        learning = {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad}
        assert learning == {"layer2", "layer3", "layer4"}
        assert not net.layer1.training
        assert net.layer2.training
        assert not any(p.requires_grad for p in getattr(net, stem).parameters())
    net = ResNet(**SMALL, norm_eval=True).train()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert net.training
    assert not any(m.training for m in norms)


def test_weights_come_from_a_local_file(tmp_path):
    source = ResNetV1c(**SMALL)
    path = tmp_path / "weights.pth"
    state = {f"backbone.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": {**state, "decode_head.conv_seg.bias": torch.zeros(2)}}, path)
    head = {"type": "FCNHead", "channels": 4, "num_classes": 2, "in_index": 3}
    backbone = {"type": "ResNetV1c", **SMALL}
    checkpoint = {"init_cfg": {"type": "Pretrained", "checkpoint": str(path)}}
    for cfg in ({"pretrained": str(path)}, {"backbone": {**backbone, **checkpoint}}):
        model = EncoderDecoder(**{"backbone": backbone, "decode_head": head, **cfg})
        assert model.decode_head.in_channels == 32
        assert torch.equal(model.backbone.stem[0].weight, source.stem[0].weight)
        config = {"model": {"type": "EncoderDecoder", "backbone": backbone, **cfg}}
        forget_pretrained(config)
        assert config == {"model": {"type": "EncoderDecoder", "backbone": backbone}}
    with pytest.raises(CheckpointError, match=r"does not fit ResNet: .*are missing"):
        ResNet(**SMALL, pretrained=str(path))
