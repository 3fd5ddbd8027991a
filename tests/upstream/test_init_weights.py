"""A backbone of MMEngine's inside a model of ours loads and initialises its weights as in theirs."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from torch import nn

pytest.importorskip("mmengine")

from mmengine.model import BaseModule

from segfast.models import EncoderDecoder
from segfast.registry import MODELS
from segfast.runner.wrap import init_weights


@MODELS.register_module()
class TheirBackbone(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x):
        return [self.conv(x)]


def segmentor(init_cfg):
    head = {
        "type": "FCNHead", "in_channels": 4, "channels": 4, "num_convs": 1, "in_index": 0, "num_classes": 3,
    }  # fmt: skip
    return EncoderDecoder({"type": "TheirBackbone", "init_cfg": init_cfg}, head)


def test_pretrained_weights_are_loaded(tmp_path):
    wanted = nn.Conv2d(3, 4, 3).state_dict()
    torch.save({f"conv.{name}": value for name, value in wanted.items()}, tmp_path / "net.pth")
    model = segmentor({"type": "Pretrained", "checkpoint": str(tmp_path / "net.pth")})
    init_weights(model)
    assert torch.equal(model.backbone.conv.weight, wanted["weight"])


def test_initialisers_are_applied_once():
    model = segmentor({"type": "Constant", "layer": "Conv2d", "val": 3.0})
    head = model.decode_head.conv_seg.weight.clone()
    init_weights(model)
    assert (model.backbone.conv.weight == 3).all()
    assert torch.equal(model.decode_head.conv_seg.weight, head)
    with torch.no_grad():
        model.backbone.conv.weight.zero_()
    init_weights(model)
    assert not model.backbone.conv.weight.any()
