"""Backbones in any form: lists, mappings, objects, timm's; channels from those that tell them."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from segmentor_parts import TinyBackbone, labelled
from torch import nn

from segfast.errors import ConfigError
from segfast.models import EncoderDecoder, FCNHead


class Feeding(nn.Module):
    """A backbone that returns its maps in one of the forms that are in use."""

    def __init__(self, form):
        super().__init__()
        self.form = form
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, x):
        x = self.conv(x)
        if self.form == "object":
            return type("Output", (), {"feature_maps": (x,)})()
        return {"one": x, "list": [x], "mapping": {"out": x}}[self.form]


@pytest.mark.parametrize("form", ["one", "list", "mapping", "object"])
def test_feature_maps_in_any_form(form):
    head = FCNHead(in_channels=8, channels=4, num_classes=3, in_index=0)
    model = EncoderDecoder(Feeding(form), head, neck=nn.Identity())
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 3, 4, 4)


class Telling(TinyBackbone):
    """Tells its channels as timm's feature extractors do."""

    class feature_info:
        channels = staticmethod(lambda: [4, 6, 8])


@pytest.mark.parametrize(
    ("inputs", "want"),
    [
        ({}, 8),
        ({"in_index": 1}, 6),
        ({"in_index": [0, 2], "input_transform": "multiple_select"}, [4, 8]),
        ({"in_index": 1, "in_channels": 6}, 6),
    ],
)
def test_channels_are_taken_from_a_backbone_that_tells_them(inputs, want):
    cfg = {
        "type": "FCNHead",
        "channels": 8,
        "num_classes": 3,
        "num_convs": 1,
        "concat_input": False,
    }
    if "input_transform" in inputs:
        cfg = {"type": "SegformerHead", "channels": 8, "num_classes": 3, "in_index": [0, 2]}
        inputs = {}
    model = EncoderDecoder(Telling(), {**cfg, **inputs}, auxiliary_head={**cfg, **inputs})
    assert model.decode_head.in_channels == model.auxiliary_head.in_channels == want
    assert model(torch.randn(1, 3, 16, 16)).shape[1] == 3
    with pytest.raises(ConfigError, match=r"decode_head\.in_channels: missing"):
        EncoderDecoder(
            Telling(), {**cfg, "in_index": 3 if "type" in cfg and cfg["type"] == "FCNHead" else [3]}
        )


def test_timm_backbone():
    pytest.importorskip("timm")
    backbone = {
        "type": "timm.create_model",
        "model_name": "resnet10t",
        "features_only": True,
        "out_indices": (1, 3, 4),
    }
    head = {"type": "SegformerHead", "channels": 16, "num_classes": 5, "in_index": [0, 1, 2]}
    aux = {"type": "FCNHead", "channels": 8, "num_classes": 5, "in_index": 1, "num_convs": 1}
    model = EncoderDecoder(backbone, head, auxiliary_head=aux)
    losses = model.loss(torch.randn(2, 3, 64, 64), labelled((64, 64)))
    model.parse_losses(losses)[0].backward()
    assert model.backbone.conv1[0].weight.grad.abs().sum() > 0
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 5, 16, 16)
