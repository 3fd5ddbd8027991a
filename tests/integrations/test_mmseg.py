"""Our parts inside MMSegmentation: found by name, equal to the stock ones, and refused where they would lie."""

# SPDX-License-Identifier: Apache-2.0
import copy
import importlib
import sys

import pytest
import torch

pytest.importorskip("mmengine")
pytest.importorskip("mmseg")

from mmengine.config import ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import PixelData
from mmseg.models.decode_heads import EncHead, FCNHead
from mmseg.registry import METRICS, MODELS
from mmseg.structures import SegDataSample

from segfast.errors import LabelError, UserError
from segfast.integrations.mmseg import FusedHead, SegfastFCNHead, fused_head
from segfast.models.staging import StagingRing

CLASSES = 5


def sample(size=(32, 40), classes=CLASSES, ori_shape=None):
    labels = torch.randint(0, classes, (1, *size))
    labels[torch.rand(1, *size) < 0.2] = 255
    meta = {"img_path": "a.png", "ori_shape": ori_shape or size, "img_shape": size}
    return SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=labels))


def head_cfg(kind, loss, **options):
    kind_options = {"num_convs": 1} if kind.endswith("FCNHead") else {}
    return {
        "type": kind, "in_channels": 8, "channels": 4, "num_classes": CLASSES, "dropout_ratio": 0, "in_index": 0,
        "loss_decode": loss, **kind_options, **options,
    }  # fmt: skip


def twins(stock_cfg, ours_cfg):
    """The stock module and ours with the same parameters."""
    stock, ours = (MODELS.build(ConfigDict(copy.deepcopy(cfg))) for cfg in (stock_cfg, ours_cfg))
    ours.load_state_dict(stock.state_dict())
    return stock, ours


LOSS, OURS = {"type": "CrossEntropyLoss"}, {"type": "SegfastCrossEntropyLoss"}
VARIANTS = {
    "plain": {},
    "align_corners": {"align_corners": True},
    "weight": {
        "loss": {"loss_weight": 0.4, "class_weight": [1.0, 2.0, 0.5, 1.0, 3.0]},
        "ignored": 4,
    },
    "valid_only": {"loss": {"avg_non_ignore": True}},
    "two_losses": {"both": [{"loss_name": "loss_a"}, {"loss_name": "loss_a", "loss_weight": 2.0}]},
    "with_dice": {"dice": True},
    "ohem": {"sampler": {"type": "OHEMPixelSampler", "thresh": 0.3, "min_kept": 100}},
    "our_ohem": {"sampler": {"type": "OHEMPixelSampler", "thresh": 0.3, "min_kept": 100}},
    "our_ohem_by_loss": {"sampler": {"type": "OHEMPixelSampler", "min_kept": 100}},
    "ohem_by_loss": {"sampler": {"type": "OHEMPixelSampler", "min_kept": 100}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_fused_head_has_the_stock_losses_and_gradients(variant):
    given = dict(VARIANTS[variant])
    ignored = given.pop("ignored", 255)
    extra, both, dice = given.pop("loss", {}), given.pop("both", None), given.pop("dice", False)
    made = [[{**kind, **e} for e in both or [extra]] for kind in (LOSS, OURS)]
    if dice:
        made = [[*losses, {"type": "DiceLoss", "loss_weight": 3.0}] for losses in made]
    swapped = copy.deepcopy(given)
    if variant.startswith("our_"):
        swapped["sampler"]["type"] = "SegfastOHEMPixelSampler"
    stock, ours = twins(
        head_cfg("FCNHead", made[0], ignore_index=ignored, **given),
        head_cfg("SegfastFCNHead", made[1], ignore_index=ignored, **swapped),
    )
    samples = [sample(), sample()]
    for one in samples:
        one.gt_sem_seg.data[one.gt_sem_seg.data == 255] = ignored
    features = torch.randn(2, 8, 8, 10)
    results = []
    for head in (stock, ours):
        x = features.clone().requires_grad_()
        losses = head.loss([x], samples, {})
        sum(v for k, v in losses.items() if "loss" in k).backward()
        results.append((losses, x.grad, head.conv_seg.weight.grad))
    (expected, *expected_grads), (actual, *grads) = results
    assert actual.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-5, atol=1e-6)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "kind", ["SegformerHead", "PSPHead", "UPerHead", "DepthwiseSeparableASPPHead"]
)
def test_other_heads_are_fused_too(kind):
    options = {"norm_cfg": {"type": "BN"}}
    if kind in ("SegformerHead", "UPerHead"):
        options |= {"in_channels": [8, 8], "in_index": [0, 1]}
    if kind == "DepthwiseSeparableASPPHead":
        options |= {"c1_in_channels": 8, "c1_channels": 4, "dilations": (1, 2), "in_index": 1}
    if kind == "PSPHead":
        options |= {"pool_scales": (1, 2)}
    stock, ours = twins(
        {**head_cfg(kind, LOSS), **options}, {**head_cfg(f"Segfast{kind}", OURS), **options}
    )
    assert isinstance(ours, FusedHead)
    features = [torch.randn(2, 8, 8, 10), torch.randn(2, 8, 4, 5)]
    samples = [sample(), sample()]
    expected, actual = stock.loss(features, samples, {}), ours.loss(features, samples, {})
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_full_size_logits_are_never_made(monkeypatch):
    head = MODELS.build(head_cfg("SegfastFCNHead", OURS))

    def refuse(*args, **kwargs):
        raise AssertionError("the head resized its logits")

    monkeypatch.setattr(torch.nn.functional, "interpolate", refuse)
    assert head.loss([torch.randn(2, 8, 8, 10)], [sample(), sample()], {})["loss_ce"] > 0


@pytest.mark.parametrize("name", ["Dice", "Focal", "Lovasz", "Tversky"])
def test_other_losses_of_ours(name):
    loss = {"type": f"Segfast{name}Loss", "loss_name": "loss_x"}
    if name == "Lovasz":
        loss["reduction"] = "none"
    head = MODELS.build(head_cfg("SegfastFCNHead", loss))
    losses = head.loss([torch.randn(2, 8, 8, 10)], [sample(), sample()], {})
    assert set(losses) == {"loss_x", "acc_seg"}
    losses["loss_x"].backward()
    assert head.conv_seg.weight.grad.abs().sum() > 0


def test_a_head_of_ones_own_can_be_fused():
    class TinyHead(FCNHead):
        pass

    assert fused_head(TinyHead).__name__ == "SegfastTinyHead"
    assert issubclass(fused_head(TinyHead), (FusedHead, TinyHead))
    assert SegfastFCNHead.__mro__[1] is FusedHead


def test_a_head_with_its_own_loss_is_refused():
    assert "SegfastEncHead" not in MODELS
    with pytest.raises(UserError, match="EncHead is no BaseDecodeHead with the stock loss_by_feat"):
        fused_head(EncHead)


def test_bad_labels_are_named():
    head = MODELS.build(head_cfg("SegfastFCNHead", OURS))
    bad = sample()
    bad.gt_sem_seg.data[0, 3, 4] = 77
    with pytest.raises(LabelError, match=r"a\.png.*77"):
        head.loss([torch.randn(1, 8, 8, 10)], [bad], {})


def preprocessors(**cfg):
    base = {"mean": [120.0, 110.0, 100.0], "std": [50.0, 60.0, 70.0], "bgr_to_rgb": True, **cfg}
    return tuple(MODELS.build({"type": kind, **copy.deepcopy(base)}) for kind in ("SegDataPreProcessor", "SegfastSegDataPreProcessor"))  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_preprocessor_gives_the_stock_batch(training):
    stock, ours = preprocessors(size_divisor=32, test_cfg={"size_divisor": 32})
    batch = {
        "inputs": [torch.randint(0, 256, (3, 32, 40), dtype=torch.uint8) for _ in range(2)],
        "data_samples": [sample(), sample()],
    }
    before = copy.deepcopy(batch)
    expected, actual = stock(copy.deepcopy(batch), training), ours(batch, training)
    assert torch.equal(actual["inputs"], expected["inputs"])
    for a, e in zip(actual["data_samples"], expected["data_samples"], strict=True):
        assert type(a) is SegDataSample
        assert torch.equal(a.gt_sem_seg.data, e.gt_sem_seg.data)
        assert a.metainfo == e.metainfo
    for given, kept in zip(batch["data_samples"], before["data_samples"], strict=True):
        assert given.metainfo == kept.metainfo  # the caller's samples stay as they are
        assert torch.equal(given.gt_sem_seg.data, kept.gt_sem_seg.data)


def test_preprocessor_follows_the_model_to_its_device():
    ours = preprocessors(size_divisor=32)[1]
    assert isinstance(ours, BaseDataPreprocessor)  # what MMEngine's BaseModel.to looks for
    ours.to("meta")
    batch = {"inputs": [], "data_samples": [sample()]}
    moved = ours.cast_data(batch)["data_samples"][0]
    assert moved.gt_sem_seg.data.device.type == "meta"


def test_preprocessor_sends_images_and_labels_in_one_copy():
    ours = preprocessors(size_divisor=8)[1]
    ours._ring = StagingRing(torch.device("cpu"))  # the same steps as on CUDA
    sent, send = [], ours._ring.send
    ours._ring.send = lambda tensors: sent.append(list(tensors)) or send(sent[-1])
    images = [torch.randint(0, 256, (3, 32, 40), dtype=torch.uint8) for _ in range(2)]
    samples = [sample(), sample()]
    batch = ours({"inputs": images, "data_samples": samples}, True)
    tensors = [*images, *(one.gt_sem_seg.data for one in samples)]
    assert {id(t) for t in sent[0]} == {id(t) for t in tensors}
    assert len(sent) == 1
    for given, got in zip(samples, batch["data_samples"], strict=True):
        assert torch.equal(got.gt_sem_seg.data, given.gt_sem_seg.data)


def test_preprocessor_makes_samples_where_padding_would_be_lost():
    ours = preprocessors()[1]
    images = [torch.zeros(3, h, 8, dtype=torch.uint8) for h in (6, 8)]
    batch = ours({"inputs": images}, False)
    assert [type(s) for s in batch["data_samples"]] == [SegDataSample, SegDataSample]
    assert batch["data_samples"][0].img_padding_size == (0, 0, 0, 2)
    assert ours({"inputs": images[:1]}, False)["data_samples"] is None


def segmentors(mode="whole", **head):
    """Stock and ours with the same weights."""
    cfg = {
        "backbone": {"type": "ResNetV1c", "depth": 18, "base_channels": 4, "out_indices": (0,), "num_stages": 1,
                     "strides": (1,), "dilations": (1,), "norm_cfg": {"type": "BN"}},
        "decode_head": {**head_cfg("FCNHead", LOSS), "in_channels": 4, **head},
        "test_cfg": {"mode": mode, "crop_size": (16, 16), "stride": (8, 8)},
    }  # fmt: skip
    models = twins({"type": "EncoderDecoder", **cfg}, {"type": "SegfastEncoderDecoder", **cfg})
    return [model.eval() for model in models]


@pytest.mark.parametrize("mode", ["whole", "slide"])
@pytest.mark.parametrize("ori_shape", [(28, 37), (20, 50)])
@pytest.mark.parametrize("flip", [None, "horizontal", "vertical"])
def test_segmentor_validates_without_logits(mode, ori_shape, flip):
    stock, ours = segmentors(mode)
    images, found = torch.randn(2, 3, 32, 40), []
    for model in (stock, ours):
        samples = [sample(ori_shape=ori_shape) for _ in range(2)]
        for one in samples:
            padding = {"img_padding_size": (0, 3, 0, 4), "pad_shape": (32, 40)}
            one.set_metainfo(padding | {"flip": bool(flip), "flip_direction": flip})
        with torch.no_grad():
            found.append(model.val_step({"inputs": images, "data_samples": samples}))
    for theirs, mine in zip(*found, strict=True):
        assert type(mine) is SegDataSample
        assert mine.pred_sem_seg.data.shape == (1, *ori_shape)
        assert (mine.pred_sem_seg.data != theirs.pred_sem_seg.data).float().mean() < 1e-3
        assert "seg_logits" in theirs
        assert ("seg_logits" in mine) == (mode == "slide")


def test_segmentor_keeps_logits_where_they_are_asked_for():
    ours = segmentors()[1]
    batch = {"inputs": torch.randn(1, 3, 32, 40), "data_samples": [sample()]}
    with torch.no_grad():
        assert "seg_logits" in ours.test_step(batch)[0]
        ours.test_cfg["keep_logits"] = False
        bare = {"inputs": batch["inputs"], "data_samples": [sample()]}
        assert "seg_logits" not in ours.test_step(bare)[0]
        ours.test_cfg["keep_logits"] = True
        assert "seg_logits" in ours.val_step(batch)[0]
        assert ours(batch["inputs"], mode="predict")[0].pred_sem_seg.data.shape == (1, 32, 40)


def test_segmentor_leaves_one_channel_to_the_stock_one():
    loss = {**LOSS, "use_sigmoid": True}
    stock, ours = segmentors(num_classes=2, out_channels=1, threshold=0.4, loss_decode=loss)
    images = torch.randn(1, 3, 32, 40)
    with torch.no_grad():
        found = [
            model.val_step({"inputs": images, "data_samples": [sample()]})[0].pred_sem_seg.data
            for model in (stock, ours)
        ]
    assert torch.equal(*found)


def test_metric_in_mmengines_evaluator():
    metrics = {}
    for kind in ("IoUMetric", "SegfastIoUMetric"):
        metric = METRICS.build({"type": kind, "iou_metrics": ["mIoU", "mDice", "mFscore"]})
        evaluator = Evaluator([metric])  # takes objects of MMEngine's BaseMetric only
        evaluator.dataset_meta = {"classes": tuple("abcde")}
        torch.manual_seed(3)
        for _ in range(3):
            one = sample()
            one.pred_sem_seg = PixelData(data=torch.randint(0, CLASSES, (1, 32, 40)))
            evaluator.process([one], None)
        metrics[kind] = evaluator.evaluate(3)
    assert metrics["SegfastIoUMetric"] == pytest.approx(metrics["IoUMetric"], abs=0.011)
    assert list(metrics["SegfastIoUMetric"]) == list(metrics["IoUMetric"])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mmseg.registry", None)
    monkeypatch.delitem(sys.modules, "segfast.integrations.mmseg")
    with pytest.raises(ImportError, match=r"segfast.integrations.mmseg needs .*mmsegmentation"):
        importlib.import_module("segfast.integrations.mmseg")
