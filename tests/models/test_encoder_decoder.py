"""EncoderDecoder and its cascade: parts, losses by name, whole and sliding inference, what is overridden is asked."""

# SPDX-License-Identifier: Apache-2.0
import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from segmentor_parts import (
    LargestTensor,
    NoWaiting,
    TinyBackbone,
    TinyCascadeHead,
    TinyHead,
    labelled,
)

from segfast.errors import ConfigError
from segfast.models import CascadeEncoderDecoder, EncoderDecoder
from segfast.registry import MODELS
from segfast.runner import OptimWrapper

BACKBONE = {"type": "TinyBackbone"}
HEAD = {"type": "TinyHead"}
SIGMOID = {"type": "TinyHead", "num_classes": 2, "out_channels": 1, "threshold": 0.4,
           "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": True}}  # fmt: skip
SLIDE = {"mode": "slide", "crop_size": (12, 14), "stride": (7, 6)}
CASCADE = {
    "type": "CascadeEncoderDecoder",
    "num_stages": 2,
    "decode_head": [HEAD, {"type": "TinyCascadeHead"}],
}


def make(**parts):
    cfg = {"type": "EncoderDecoder", "backbone": BACKBONE, "decode_head": HEAD, **parts}
    return MODELS.build(cfg)


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({}, ["decode.loss_ce", "decode.acc_seg"]),
        ({"decode_head": SIGMOID}, ["decode.loss_ce", "decode.acc_seg"]),
        ({"decode_head": SIGMOID, "test_cfg": SLIDE}, ["decode.loss_ce", "decode.acc_seg"]),
        ({"auxiliary_head": HEAD}, ["decode.loss_ce", "decode.acc_seg", "aux.loss_ce", "aux.acc_seg"]),
        ({"auxiliary_head": [HEAD, HEAD]}, ["decode.loss_ce", "decode.acc_seg", "aux_0.loss_ce", "aux_0.acc_seg", "aux_1.loss_ce", "aux_1.acc_seg"]),
        (CASCADE, ["decode_0.loss_ce", "decode_0.acc_seg", "decode_1.loss_ce", "decode_1.acc_seg"]),
        ({**CASCADE, "auxiliary_head": HEAD}, ["decode_0.loss_ce", "decode_0.acc_seg", "decode_1.loss_ce", "decode_1.acc_seg", "aux.loss_ce", "aux.acc_seg"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else "+".join(value) or "plain",
)  # fmt: skip
def test_train_validate_and_look_at_logits(parts, names):
    model = make(**parts)
    num_classes = model.num_classes
    inputs, samples = torch.randn(2, 3, 24, 32), labelled((24, 32), num_classes=num_classes)
    assert list(model(inputs, samples, mode="loss")) == names
    weights = [
        w for name, w in model.named_parameters() if name.endswith(("seg.weight", "0.0.weight"))
    ]
    before = copy.deepcopy(weights)
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), 0.1))
    log = model.train_step({"inputs": inputs, "data_samples": samples}, optim)
    assert list(log) == ["loss", *names]
    torch.testing.assert_close(log["loss"], sum(log[n] for n in names if "loss" in n))
    assert not any(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    model.eval()
    with torch.no_grad():
        results = model.val_step({"inputs": inputs, "data_samples": samples})
        logits = model(inputs, samples, mode="tensor")
    assert [sample.pred_sem_seg.shape for sample in results] == [(24, 32)] * 2
    assert logits.shape == (2, model.out_channels, 3, 4)


def test_flags_and_what_the_last_head_tells():
    model = make(decode_head={**HEAD, "num_classes": 7, "align_corners": True})
    assert (model.num_classes, model.out_channels, model.align_corners) == (7, 7, True)
    assert (model.with_neck, model.with_auxiliary_head, model.with_decode_head) == (
        False,
        False,
        True,
    )
    model = make(neck={"type": "torch.nn.Identity"}, auxiliary_head=HEAD)
    assert (model.with_neck, model.with_auxiliary_head) == (True, True)
    last = {"type": "TinyCascadeHead", "num_classes": 2, "out_channels": 1, "threshold": 0.9}
    model = make(**{**CASCADE, "decode_head": [{**HEAD, "num_classes": 2}, last]})
    assert (model.num_classes, model.out_channels, model.threshold) == (2, 1, 0.9)
    assert make(decode_head=SIGMOID).threshold == 0.4


def test_parts_may_be_modules():
    backbone, head = TinyBackbone(), TinyHead()
    model = EncoderDecoder(backbone, head, auxiliary_head=[head])
    assert model.backbone is backbone
    assert model.decode_head is model.auxiliary_head[0] is head


def test_errors_carry_their_path():
    with pytest.raises(
        ConfigError, match=r"^m\.decode_head\.num_class: .*did you mean num_classes"
    ):
        MODELS.build(
            {
                "type": "EncoderDecoder",
                "backbone": BACKBONE,
                "decode_head": {**HEAD, "num_class": 2},
            },
            "m",
        )
    with pytest.raises(ConfigError, match=r"^auxiliary_head\.1\.type: .*FCNHead"):
        make(auxiliary_head=[HEAD, {"type": "FCNHed"}])
    fcn = {"type": "FCNHead", "channels": 4, "num_classes": 2}
    with pytest.raises(ConfigError, match=r"^decode_head\.in_channels: missing"):
        make(decode_head=fcn)
    with pytest.raises(AssertionError, match="both backbone and segmentor"):
        EncoderDecoder({**BACKBONE, "pretrained": "a"}, HEAD, pretrained="b")
    assert make(pretrained="a.pth").backbone.pretrained == "a.pth"
    with pytest.raises(AssertionError, match="num_stages is 3, but decode_head lists 2"):
        CascadeEncoderDecoder(3, BACKBONE, CASCADE["decode_head"])


@pytest.mark.parametrize(
    ("cfg", "key"),
    [
        ({"mode": "slides"}, "mode"),
        ({"mode": "slide", "stride": 4}, "crop_size"),
        ({"mode": "slide", "crop_size": (8, 8, 8), "stride": 4}, "crop_size"),
        ({"mode": "slide", "crop_size": 8}, "stride"),
        ({"mode": "slide", "crop_size": 8, "stride": (4, 0)}, "stride"),
        ({"mode": "slide", "crop_size": (8, 8), "stride": (4, 9)}, "stride"),
        ({"keep_logit": True}, "keep_logit"),
    ],
)
def test_a_wrong_test_cfg_is_refused(cfg, key):
    with pytest.raises(ConfigError, match=rf"^test_cfg\.{key}: "):
        make(test_cfg=cfg)


def test_test_cfg_has_attributes():
    model = make(test_cfg={**SLIDE, "stride": 5, "subdivision_steps": 2}, train_cfg={"a": 1})
    cfg = copy.deepcopy(model.test_cfg)
    assert (cfg.mode, cfg.crop_size, cfg.stride) == ("slide", (12, 14), (5, 5))
    assert (cfg.subdivision_steps, model.train_cfg.a) == (2, 1)
    cfg.mode = "whole"
    assert cfg["mode"] == "whole"
    with pytest.raises(AttributeError, match="no key 'strides'"):
        _ = cfg.strides
    assert make().test_cfg.mode == "whole"


METAS = [
    {"ori_shape": (24, 32)},
    {"ori_shape": (21, 30), "img_padding_size": (2, 0, 1, 2), "flip": True, "flip_direction": "horizontal"},
    {"ori_shape": (50, 20), "padding_size": (0, 3, 0, 1)},
]  # fmt: skip


@pytest.mark.parametrize(
    "parts", [{}, CASCADE, {"decode_head": SIGMOID}], ids=["one", "cascade", "sigmoid"]
)
@pytest.mark.parametrize(
    "test_cfg",
    [{"mode": "whole"}, SLIDE, {**SLIDE, "gaussian": True}],
    ids=["whole", "slide", "gauss"],
)
@pytest.mark.parametrize("meta", METAS, ids=["as it is", "padded and flipped", "resized"])
def test_the_fast_ways_agree_with_full_size_logits(parts, test_cfg, meta):
    model = make(**parts, test_cfg=test_cfg).eval()
    inputs = torch.randn(2, 3, 24, 32)
    with torch.no_grad():
        full = model.inference(inputs, [{"img_shape": (1, 1), **meta}] * 2)
        assert full.shape == (2, model.out_channels, 24, 32)
        want = model.postprocess_result(full, labelled((24, 32), **meta))
        got = model.predict(inputs, labelled((24, 32), **meta))
        model.test_cfg.keep_logits = False
        bare = model.predict(inputs, labelled((24, 32), **meta))
    for a, b, c in zip(want, got, bare, strict=True):
        torch.testing.assert_close(a.seg_logits.data, b.seg_logits.data)
        assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data)
        assert torch.equal(a.pred_sem_seg.data, c.pred_sem_seg.data)
        assert "seg_logits" not in c
        assert c.pred_sem_seg.data.dtype == torch.int64


@pytest.mark.parametrize("test_cfg", [{}, SLIDE], ids=["whole", "slide"])
def test_prediction_without_samples(test_cfg):
    model = make(test_cfg=test_cfg).eval()
    inputs = torch.randn(2, 3, 24, 32)
    results = model.predict(inputs)
    logits = model.inference(inputs, [{"img_shape": (24, 32)}] * 2)
    for sample, want in zip(results, logits, strict=True):
        torch.testing.assert_close(sample.seg_logits.data, want)


def test_samples_of_training_are_predicted_at_the_padded_size():
    model = make().eval()
    meta = {"ori_shape": (20, 30), "img_shape": torch.Size((20, 30)), "padding_size": (0, 2, 0, 4)}
    inputs = torch.randn(2, 3, 24, 32)
    (a, _), (b, _) = (
        model.predict(inputs, labelled((24, 32), **meta, **more))
        for more in ({}, {"pad_shape": (24, 32)})
    )
    want = F.interpolate(model(inputs), (24, 32), mode="bilinear")[0, :, :20, :30]
    assert torch.equal(a.seg_logits.data, want)
    assert torch.equal(b.seg_logits.data, want)
    assert model.inference(inputs, [meta] * 2).shape == (2, 5, 24, 32)


def test_classes_need_no_logits_of_the_images_size():
    cfg = {**HEAD, "num_classes": 40}
    inputs = torch.randn(1, 3, 200, 32)
    for test_cfg in ({}, {"mode": "slide", "crop_size": (24, 32), "stride": (16, 32)}):
        model = make(decode_head=cfg, test_cfg={**test_cfg, "keep_logits": False}).eval()
        with torch.no_grad(), LargestTensor() as seen:
            model.predict(inputs, labelled((200, 32), 1))
        assert seen.largest <= 40 * 32 * 24 < 40 * 32 * 200


class LoudHead(TinyHead):
    """Brings its own way to full-size logits."""

    def predict_by_feat(self, seg_logits, batch_img_metas):
        return 1 - super().predict_by_feat(seg_logits, batch_img_metas)


class OwnEncoding(EncoderDecoder):
    def encode_decode(self, inputs, batch_img_metas):
        return 1 - super().encode_decode(inputs, batch_img_metas)


class OwnInference(EncoderDecoder):
    def inference(self, inputs, batch_img_metas):
        return 1 - super().inference(inputs, batch_img_metas)


@pytest.mark.parametrize("test_cfg", [{}, SLIDE], ids=["whole", "slide"])
@pytest.mark.parametrize(
    ("kind", "head"),
    [(EncoderDecoder, LoudHead), (OwnEncoding, TinyHead), (OwnInference, TinyHead)],
)
def test_overridden_methods_are_asked(kind, head, test_cfg):
    plain = make(test_cfg=test_cfg).eval()
    model = kind(plain.backbone, head(), test_cfg=test_cfg).eval()
    model.load_state_dict(plain.state_dict())
    inputs = torch.randn(1, 3, 24, 32)
    for keep_logits in (True, False):
        model.test_cfg.keep_logits = plain.test_cfg.keep_logits = keep_logits
        want, got = plain.predict(inputs)[0], model.predict(inputs)[0]
        assert not torch.equal(got.pred_sem_seg.data, want.pred_sem_seg.data)
        if keep_logits:
            torch.testing.assert_close(got.seg_logits.data, 1 - want.seg_logits.data)


def test_each_head_of_a_cascade_runs_once():
    model = make(**CASCADE)
    calls = []
    for head in model.decode_head:
        head.register_forward_hook(lambda head, *_: calls.append(type(head).__name__))
    model.loss(torch.randn(2, 3, 24, 32), labelled((24, 32)))
    assert calls == ["TinyHead", "TinyCascadeHead"]


class OwnLoss(TinyHead):
    def loss(self, inputs, batch_data_samples, train_cfg):
        return {"loss_own": inputs[-1].mean() * train_cfg.factor}


def test_a_head_of_a_cascade_may_have_its_own_loss():
    heads = [{"type": OwnLoss}, {"type": "TinyCascadeHead"}]
    model = make(**{**CASCADE, "decode_head": heads}, train_cfg={"factor": 2.0})
    inputs = torch.randn(2, 3, 24, 32)
    losses = model.loss(inputs, labelled((24, 32)))
    assert list(losses) == ["decode_0.loss_own", "decode_1.loss_ce", "decode_1.acc_seg"]
    torch.testing.assert_close(
        losses["decode_0.loss_own"], 2 * model.extract_feat(inputs)[-1].mean()
    )


class LastOwnLoss(TinyCascadeHead):
    calls = 0

    def forward(self, inputs, prev_output):
        self.calls += 1
        return super().forward(inputs, prev_output)

    def loss(self, inputs, prev_output, batch_data_samples, train_cfg):
        return {"loss_last": self.forward(inputs, prev_output).mean()}


def test_the_last_head_of_a_cascade_runs_once_whatever_its_loss():
    model = make(**{**CASCADE, "decode_head": [HEAD, {"type": LastOwnLoss}]})
    assert "decode_1.loss_last" in model.loss(torch.randn(2, 3, 24, 32), labelled((24, 32)))
    assert model.decode_head[1].calls == 1


OHEM = [
    {"type": "OHEMPixelSampler", "min_kept": 20},
    {"type": "OHEMPixelSampler", "thresh": 0.7, "min_kept": 20},
]


@pytest.mark.parametrize("keep_logits", [True, False])
@pytest.mark.parametrize("test_cfg", [{}, {**SLIDE, "gaussian": True}], ids=["whole", "slide"])
@pytest.mark.parametrize("head", [HEAD, SIGMOID, *({**HEAD, "sampler": ohem} for ohem in OHEM)])
def test_nothing_waits_for_the_device(head, test_cfg, keep_logits):
    model = make(
        decode_head=head, test_cfg={**test_cfg, "keep_logits": keep_logits}, auxiliary_head=HEAD
    )
    inputs, samples = torch.randn(2, 3, 24, 32), labelled((24, 32), num_classes=model.num_classes)
    with NoWaiting():
        losses = model.loss(inputs, samples)
        model.parse_losses(losses)[0].backward()
        model.eval()
        with torch.no_grad():
            model.predict(inputs, samples)


def test_models_can_be_copied_and_pickled():
    sampler = {"type": "OHEMPixelSampler", "thresh": 0.7, "min_kept": 20}
    head = {
        "type": "FCNHead",
        "in_channels": 8,
        "channels": 4,
        "num_classes": 5,
        "sampler": sampler,
    }
    model = make(decode_head=head, auxiliary_head=HEAD, test_cfg=SLIDE)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.decode_head.sampler.context is twin.decode_head
        assert twin.test_cfg == model.test_cfg
        assert torch.equal(twin.decode_head.conv_seg.weight, model.decode_head.conv_seg.weight)
