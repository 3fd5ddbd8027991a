"""Decode heads, EncoderDecoder, its cascade and test-time augmentation against mmseg's, with the same weights."""

# SPDX-License-Identifier: Apache-2.0
import copy
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from segfast import models
from segfast.registry import MODELS
from segfast.structures import PixelData, SegDataSample

pytest.importorskip("mmseg.models", exc_type=ImportError)

import mmseg.models as upstream
from mmengine import Config, ConfigDict
from mmengine.structures import PixelData as UpstreamPixelData
from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.registry import MODELS as UPSTREAM_MODELS
from mmseg.structures import SegDataSample as UpstreamSample

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("_registered"),
]


class ComparedBackbone(nn.Module):
    """Two feature maps, strides 2 and 4."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, 2, 1)
        self.b = nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, x):
        a = self.a(x).relu()
        return [a, self.b(a)]


def cascade_head(base):
    class ComparedCascadeHead(base):
        def __init__(self, **kwargs):
            super().__init__(6, 4, **kwargs)
            self.mix = nn.Conv2d(6 + self.out_channels, 4, 1)

        def forward(self, inputs, prev_output):
            return self.cls_seg(self.mix(torch.cat([inputs[-1], prev_output], 1)))

    return ComparedCascadeHead


@pytest.fixture(scope="module")
def _registered():
    for registry, base in (
        (UPSTREAM_MODELS, BaseCascadeDecodeHead),
        (MODELS, models.BaseCascadeDecodeHead),
    ):
        registry.register_module(module=ComparedBackbone, force=True)
        registry.register_module(module=cascade_head(base), force=True)


def samples_of(labels, meta, sample=SegDataSample, pixels=PixelData):
    return [sample(metainfo=meta, gt_sem_seg=pixels(data=label)) for label in labels]


def upstream_samples_of(labels, meta):
    return samples_of(labels, meta, UpstreamSample, UpstreamPixelData)


def without_dropout(module):
    for part in module.modules():
        if isinstance(part, nn.Dropout2d):
            part.p = 0.0
    return module


def random_labels(size, num_classes, ignored=0.2):
    labels = torch.randint(num_classes, (2, 1, *size))
    labels[torch.rand(labels.shape) < ignored] = 255
    return labels


def head_config(choose, num_classes, out_channels):
    """A random FCNHead: losses, sampler, corners."""
    sigmoid = out_channels == 1 or choose.random() < 0.3
    losses = [
        {
            "type": "CrossEntropyLoss",
            "use_sigmoid": sigmoid,
            "avg_non_ignore": choose.random() < 0.5,
            "loss_weight": choose.random() + 0.1,
        }
    ]
    if choose.random() < 0.4:
        losses.append(
            {
                "type": "CrossEntropyLoss",
                "use_sigmoid": sigmoid,
                "loss_name": choose.choice(["loss_ce", "loss_b"]),
            }
        )
    ohem = [
        {"type": "OHEMPixelSampler", "min_kept": 20},
        {"type": "OHEMPixelSampler", "thresh": 0.7, "min_kept": 20},
    ]
    return {
        "in_channels": 4, "channels": 4, "num_classes": num_classes, "out_channels": out_channels,
        "align_corners": choose.random() < 0.5, "loss_decode": losses[0] if choose.random() < 0.3 else losses,
        "sampler": None if sigmoid else choose.choice([None, *ohem]),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(100))
def test_losses_and_predictions_of_a_head(seed):
    torch.manual_seed(seed)
    choose = random.Random(seed)
    num_classes, out_channels = choose.choice([(2, None), (2, 1), (3, None), (19, None)])
    cfg = head_config(choose, num_classes, out_channels)
    theirs = without_dropout(upstream.FCNHead(**copy.deepcopy(cfg)))
    ours = without_dropout(models.FCNHead(**cfg))
    ours.load_state_dict(theirs.state_dict())
    maps = [torch.randn(2, 4, choose.randint(1, 9), choose.randint(1, 9))]
    size = choose.randint(2, 30), choose.randint(2, 30)
    labels = random_labels(size, num_classes)
    want = theirs.loss(maps, upstream_samples_of(labels, {}), None)
    got = ours.loss(maps, samples_of(labels, {}), None)
    assert list(got) == list(want)
    for name in want:
        if name != "acc_seg" or out_channels != 1:  # theirs is the share of label 0
            torch.testing.assert_close(got[name], want[name])
    metas = (
        {"img_shape": size},
        {"img_shape": (3, 3), "pad_shape": (*size, 3)},
        {"img_shape": torch.Size(size), "pad_shape": (1, 1)},
    )
    for meta in metas:
        assert torch.equal(ours.predict(maps, [meta], None), theirs.predict(maps, [meta], None))


HEADS = [
    ("PSPHead", {"in_channels": 8, "pool_scales": (1, 2)}),
    ("UPerHead", {"in_channels": [4, 6, 8], "in_index": [0, 1, 2]}),
    ("SegformerHead", {"in_channels": [4, 6, 8], "in_index": [0, 1, 2]}),
    ("ASPPHead", {"in_channels": 8, "dilations": (1, 2, 3)}),
    ("DepthwiseSeparableASPPHead", {"in_channels": 8, "c1_in_channels": 4, "c1_channels": 3}),
    ("DepthwiseSeparableASPPHead", {"in_channels": 8, "c1_in_channels": 0, "c1_channels": 0}),
    ("DepthwiseSeparableFCNHead", {"in_channels": 8}),
    ("FCNHead", {"in_channels": 18, "in_index": [0, 1, 2], "input_transform": "resize_concat"}),
]


@pytest.mark.parametrize(("name", "options"), HEADS)
@pytest.mark.parametrize("norm_cfg", [None, {"type": "BN"}])
@pytest.mark.parametrize("align_corners", [False, True])
def test_heads_with_upstreams_weights(name, options, norm_cfg, align_corners):
    options = {
        **options,
        "channels": 8,
        "num_classes": 5,
        "norm_cfg": norm_cfg,
        "align_corners": align_corners,
    }
    if name == "FCNHead":
        options["in_channels"] = [4, 6, 8]
    theirs = without_dropout(getattr(upstream, name)(**options))
    ours = without_dropout(getattr(models, name)(**options))
    ours.load_state_dict(theirs.state_dict())
    maps = [torch.randn(2, c, n, n + 1) for c, n in ((4, 16), (6, 8), (8, 5))]
    torch.testing.assert_close(ours(maps), theirs(maps), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_resnets_with_upstreams_weights(seed):
    torch.manual_seed(seed)
    choose = random.Random(seed)
    stages = choose.choice([3, 4])
    options = {
        "depth": choose.choice([18, 50]), "num_stages": stages, "base_channels": 4, "stem_channels": 8,
        "strides": choose.choice([(1, 2, 2, 2), (1, 2, 1, 1)])[:stages], "dilations": choose.choice([(1, 1, 1, 1), (1, 1, 2, 4)])[:stages],
        "out_indices": choose.choice([(0, 1, 2), (2,)]), "style": choose.choice(["pytorch", "caffe"]), "norm_cfg": {"type": "BN"},
        "contract_dilation": choose.random() < 0.5, "frozen_stages": choose.choice([-1, 0, 1]), "norm_eval": choose.random() < 0.3,
        "multi_grid": (1, 2, 4) if stages == 4 and choose.random() < 0.5 else None,
    }  # fmt: skip
    name = choose.choice(["ResNet", "ResNetV1c", "ResNetV1d"])
    theirs, ours = (getattr(library, name)(**options) for library in (upstream, models))
    ours.load_state_dict(theirs.state_dict())
    theirs.train(), ours.train()
    kept = [
        [m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        for net in (theirs, ours)
    ]
    assert kept[0] == kept[1]
    learning = [{n for n, p in net.named_parameters() if p.requires_grad} for net in (theirs, ours)]
    assert learning[0] == learning[1]
    images = torch.randn(2, 3, 50, 70)
    for want, got in zip(theirs(images), ours(images), strict=True):
        assert torch.equal(got, want)


def segmentor_config(choose):
    num_classes, out_channels = choose.choice([(2, None), (5, None), (2, 1)])
    output = {
        "num_classes": num_classes,
        "out_channels": out_channels,
        "align_corners": choose.random() < 0.5,
    }
    test_cfg = {"mode": "whole"}
    if choose.random() < 0.6:
        crop = choose.randint(5, 30), choose.randint(5, 30)
        test_cfg = {
            "mode": "slide",
            "crop_size": crop,
            "stride": tuple(choose.randint(2, n) for n in crop),
        }
    head = {
        "type": "FCNHead",
        "in_channels": 6,
        "channels": 4,
        "num_convs": 1,
        "concat_input": False,
        **output,
    }
    cfg = {
        "type": "EncoderDecoder",
        "backbone": {"type": "ComparedBackbone"},
        "decode_head": head,
        "test_cfg": test_cfg,
    }
    if out_channels is None and choose.random() < 0.5:
        heads = [head, {"type": "ComparedCascadeHead", **output}]
        cfg = {**cfg, "type": "CascadeEncoderDecoder", "num_stages": 2, "decode_head": heads}
    elif choose.random() < 0.5:
        cfg["auxiliary_head"] = [{**head, "in_channels": 4, "in_index": 0}, head]
    return cfg, num_classes, out_channels


def both(cfg):
    theirs = without_dropout(UPSTREAM_MODELS.build(ConfigDict(copy.deepcopy(cfg))))
    ours = without_dropout(MODELS.build(cfg))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("seed", range(100))
def test_losses_and_predictions_of_a_segmentor(seed):
    torch.manual_seed(seed)
    choose = random.Random(seed)
    cfg, num_classes, out_channels = segmentor_config(choose)
    theirs, ours = both(cfg)
    height, width = choose.randint(8, 40), choose.randint(8, 40)
    inputs, labels = torch.randn(2, 3, height, width), random_labels((height, width), num_classes)
    left, right, top, bottom = (choose.randint(0, 3) for _ in range(4))
    meta = {
        "ori_shape": choose.choice([(height - top - bottom, width - left - right), (17, 23)]),
        "img_shape": (height, width), "pad_shape": (height, width), "flip": choose.random() < 0.5,
        "flip_direction": choose.choice(["horizontal", "vertical"]),
        choose.choice(["padding_size", "img_padding_size"]): (left, right, top, bottom),
    }  # fmt: skip
    if out_channels is None:  # their softmax of one channel is always 0
        want, got = (
            theirs.loss(inputs, upstream_samples_of(labels, meta)),
            ours.loss(inputs, samples_of(labels, meta)),
        )
        assert list(got) == list(want)
        for name in want:
            torch.testing.assert_close(got[name], want[name])
    theirs.eval(), ours.eval()
    with torch.no_grad():
        assert torch.equal(ours(inputs), theirs(inputs))
        metas = [meta, meta]
        assert torch.equal(
            ours.inference(inputs, metas), theirs.inference(inputs, copy.deepcopy(metas))
        )
        assert [set(m) for m in metas] == [set(meta)] * 2
        want = theirs.predict(inputs, upstream_samples_of(labels, meta))
        got = ours.predict(inputs, samples_of(labels, meta))
        ours.test_cfg.keep_logits = False
        bare = ours.predict(inputs, samples_of(labels, meta))
    for a, b, c in zip(want, got, bare, strict=True):
        torch.testing.assert_close(b.seg_logits.data, a.seg_logits.data, rtol=1e-6, atol=1e-6)
        assert torch.equal(
            b.pred_sem_seg.data, a.pred_sem_seg.data.long()
        )  # floats for one channel there
        assert torch.equal(c.pred_sem_seg.data, b.pred_sem_seg.data)


@pytest.mark.parametrize("seed", range(20))
def test_merged_predictions(seed):
    torch.manual_seed(seed)
    choose = random.Random(seed)
    cfg, num_classes, out_channels = segmentor_config(choose)
    if out_channels == 1:  # theirs takes the sigmoid of probabilities
        cfg["decode_head"] = {**cfg["decode_head"], "out_channels": None}
        cfg.pop("auxiliary_head", None)
    theirs, ours = both(cfg)
    theirs, ours = upstream.SegTTAModel(theirs.eval()), models.SegTTAModel(ours.eval())
    inputs = [torch.randn(1, 3, 12 + i, 12 + i) for i in range(4)]
    labels = random_labels((10, 10), num_classes)[:1]
    flips = [
        {"flip": i % 2 == 0, "flip_direction": choose.choice(["horizontal", "vertical"])}
        for i in range(4)
    ]
    metas = [
        {"ori_shape": (10, 10), "img_shape": (12 + i, 12 + i), "img_path": str(i), **flips[i]}
        for i in range(4)
    ]
    with torch.no_grad():
        (want,) = theirs.test_step(
            {"inputs": inputs, "data_samples": [upstream_samples_of(labels, m) for m in metas]}
        )
        (got,) = ours.test_step(
            {"inputs": inputs, "data_samples": [samples_of(labels, m) for m in metas]}
        )
    assert torch.equal(got.pred_sem_seg.data, want.pred_sem_seg.data)
    assert got.img_path == want.img_path == "0"
    assert torch.equal(got.gt_sem_seg.data, want.gt_sem_seg.data)


MODEL_FILES = [
    "fcn_r50-d8",
    "pspnet_r50-d8",
    "deeplabv3_r50-d8",
    "deeplabv3plus_r50-d8",
    "upernet_r50",
]


@pytest.mark.parametrize("name", MODEL_FILES)
def test_upstreams_model_files_build_with_the_same_parameters(name):
    path = (
        Path(upstream.__file__).parents[1] / ".mim" / "configs" / "_base_" / "models" / f"{name}.py"
    )
    if not path.is_file():
        pytest.skip("this mmseg carries no config files")
    cfg = Config.fromfile(path).model
    cfg.pretrained = None
    cfg.data_preprocessor = None  # theirs asks for a size
    ours = MODELS.build(cfg.to_dict(), "model")
    cfg.data_preprocessor = {"type": "BaseDataPreprocessor"}
    theirs = UPSTREAM_MODELS.build(cfg)
    shapes = [
        {key: value.shape for key, value in net.state_dict().items()} for net in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]
