"""BaseDecodeHead: what it accepts, losses equal to the eager composition, predictions of the right size."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F
from segmentor_parts import LargestTensor, TinyHead, labelled
from torch import nn

from segfast.errors import ConfigError, LabelError, UserError
from segfast.models import BaseDecodeHead, FCNHead
from segfast.registry import MODELS

CROSS_ENTROPY = {"type": "CrossEntropyLoss"}


class PlainHead(BaseDecodeHead):
    def forward(self, inputs):
        return self.cls_seg(self._transform_inputs(inputs))


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"in_channels": [32, 16]}, "in_channels should be one int"),
        ({"in_index": [-1, -2]}, "in_index should be one int"),
        ({"input_transform": "concat"}, "not 'concat'"),
        ({"input_transform": "resize_concat"}, "in_channels should be a list"),
        ({"in_channels": [32], "input_transform": "resize_concat"}, "in_index should be a list"),
        ({"in_channels": [32, 16], "in_index": [-1], "input_transform": "multiple_select"}, "one length"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_refused(args, text):
    with pytest.raises(AssertionError, match=text):
        PlainHead(**{"in_channels": 32, "channels": 16, "num_classes": 19, **args})


def test_output_channels_and_threshold():
    with pytest.raises(ValueError, match=r"num_classes \(19\).*got 18"):
        PlainHead(32, 16, num_classes=19, out_channels=18)
    assert PlainHead(32, 16, num_classes=2).out_channels == 2
    with pytest.warns(UserWarning, match="threshold is not given"):
        head = PlainHead(32, 16, num_classes=2, out_channels=1)
    assert (head.out_channels, head.num_classes, head.threshold) == (1, 2, 0.3)
    assert PlainHead(32, 16, num_classes=2, out_channels=1, threshold=0.7).threshold == 0.7


def test_dropout_and_initialisation():
    head = PlainHead(32, 16, num_classes=19)
    assert isinstance(head.dropout, nn.Dropout2d)
    assert head.dropout.p == 0.1
    assert PlainHead(32, 16, num_classes=19, dropout_ratio=0).dropout is None
    assert 0.008 < head.conv_seg.weight.std() < 0.012
    assert not head.conv_seg.bias.any()
    with pytest.warns(UserWarning, match="init_cfg is not applied"):
        PlainHead(32, 16, num_classes=19, init_cfg={"type": "Normal"})


def test_feature_maps_are_selected():
    maps = [torch.randn(1, 32, 45, 45), torch.randn(1, 16, 21, 21)]
    one = PlainHead(32, 16, num_classes=19, in_index=0)
    assert one._transform_inputs(maps) is maps[0]
    many = {"in_channels": [32, 16], "in_index": [0, 1], "channels": 16, "num_classes": 19}
    selected = PlainHead(**many, input_transform="multiple_select")
    assert selected.in_channels == [32, 16]
    assert [a is b for a, b in zip(selected._transform_inputs(maps), maps, strict=True)] == [
        True
    ] * 2
    concat = PlainHead(**many, input_transform="resize_concat", align_corners=True)
    assert concat.in_channels == 48
    small = F.interpolate(maps[1], (45, 45), mode="bilinear", align_corners=True)
    assert torch.equal(concat._transform_inputs(maps), torch.cat([maps[0], small], 1))


def test_losses_are_configs_or_modules():
    for wrong in (["CrossEntropyLoss"], 0, "CrossEntropyLoss"):
        with pytest.raises(TypeError, match="loss_decode should be"):
            PlainHead(3, 16, num_classes=19, loss_decode=wrong)
    assert isinstance(
        PlainHead(3, 16, num_classes=2, loss_decode=nn.L1Loss()).loss_decode, nn.L1Loss
    )
    cfg = {"type": "FCNHead", "in_channels": 3, "channels": 4, "num_classes": 2}
    with pytest.raises(
        ConfigError, match=r"^h\.loss_decode\.1\.loss_weigth: .*did you mean loss_weight"
    ):
        MODELS.build(
            {**cfg, "loss_decode": [CROSS_ENTROPY, {**CROSS_ENTROPY, "loss_weigth": 1}]}, "h"
        )
    with pytest.raises(ConfigError, match=r"^h\.num_class: .*did you mean num_classes"):
        MODELS.build({**cfg, "num_class": 2}, "h")
    with pytest.raises(ConfigError, match=r"^h\.channels: missing"):
        MODELS.build({"type": "FCNHead", "in_channels": 3, "num_classes": 2}, "h")


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (13, 30), (8, 8), (5, 3)], ids=str)
def test_loss_equals_the_eager_composition(size, align_corners):
    head = PlainHead(3, 16, num_classes=5, align_corners=align_corners)
    logits = torch.randn(2, 5, 8, 8, requires_grad=True)
    samples = labelled(size)
    losses = head.loss_by_feat(logits, samples)
    assert list(losses) == ["loss_ce", "acc_seg"]
    label = torch.cat([sample.gt_sem_seg.data for sample in samples])
    full = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
    want = F.cross_entropy(full, label, ignore_index=255, reduction="sum") / label.numel()
    torch.testing.assert_close(losses["loss_ce"], want)
    right = (full.argmax(1) == label)[label != 255].float().mean() * 100
    torch.testing.assert_close(losses["acc_seg"], right.view(1))
    grads = [torch.autograd.grad(loss, logits)[0] for loss in (losses["loss_ce"], want)]
    torch.testing.assert_close(*grads)


def test_training_holds_no_logits_of_the_labels_size():
    head = PlainHead(3, 16, num_classes=50, loss_decode=[CROSS_ENTROPY, CROSS_ENTROPY])
    logits = torch.randn(2, 50, 8, 8, requires_grad=True)
    with LargestTensor() as seen:
        head.loss_by_feat(logits, labelled((64, 64), num_classes=50))["loss_ce"].backward()
    assert seen.largest == logits.numel()


def test_equal_names_add_up_exactly():
    logits, samples = torch.randn(2, 19, 8, 8), labelled((64, 64), num_classes=19)
    one = PlainHead(3, 16, num_classes=19).loss_by_feat(logits, samples)
    three = PlainHead(3, 16, num_classes=19, loss_decode=(CROSS_ENTROPY,) * 3)
    assert three.loss_by_feat(logits, samples)["loss_ce"] == 3 * one["loss_ce"]
    named = [{**CROSS_ENTROPY, "loss_name": name} for name in ("loss_1", "loss_2")]
    two = PlainHead(3, 16, num_classes=19, loss_decode=named).loss_by_feat(logits, samples)
    assert list(two) == ["loss_1", "loss_2", "acc_seg"]
    assert two["loss_1"] == two["loss_2"] == one["loss_ce"]


class WeighedLoss(nn.Module):
    """A loss in the contract's form: full-size logits, int64 labels, a weight map."""

    loss_name = "loss_weighed"

    def forward(self, seg_logit, label, weight=None, ignore_index=255):
        self.seen = seg_logit.shape, label.dtype, weight, ignore_index
        return seg_logit.mean()


class BareLoss(nn.Module):
    def forward(self, seg_logit, label):
        return seg_logit.mean()


def test_other_losses_get_what_they_take():
    loss = WeighedLoss()
    head = PlainHead(3, 16, num_classes=5, loss_decode=[loss, BareLoss()], ignore_index=7)
    found = head.loss_by_feat(torch.randn(2, 5, 8, 8), labelled((16, 12)))
    assert list(found) == ["loss_weighed", "loss_bareloss", "acc_seg"]
    assert loss.seen == ((2, 5, 16, 12), torch.int64, None, 7)
    logits = torch.randn(2, 5, 8, 8)
    head = PlainHead(3, 16, num_classes=5, loss_decode=loss, align_corners=True)
    full = F.interpolate(logits, (16, 12), mode="bilinear", align_corners=True)
    assert head.loss_by_feat(logits, labelled((16, 12)))["loss_weighed"] == full.mean()
    sampler = {"type": "OHEMPixelSampler", "thresh": 0.7, "min_kept": 2}
    head = PlainHead(3, 16, num_classes=5, loss_decode=loss, sampler=sampler)
    head.loss_by_feat(torch.randn(2, 5, 8, 8), labelled((16, 12)))
    assert loss.seen[2].shape == (2, 16, 12)
    head = PlainHead(3, 16, num_classes=5, loss_decode=BareLoss(), sampler=sampler)
    with pytest.raises(UserError, match=r"BareLoss takes no weight per pixel.*remove the sampler"):
        head.loss_by_feat(torch.randn(2, 5, 8, 8), labelled((16, 12)))


class LowerHalf:
    """A foreign sampler."""

    def __init__(self, context):
        self.context = context

    def sample(self, seg_logit, seg_label):
        assert seg_logit.shape[2:] == seg_label.shape[2:]
        weight = torch.zeros(seg_label.shape[0], *seg_label.shape[2:])
        weight[:, weight.shape[1] // 2 :] = 1
        return weight


def test_foreign_samplers_see_full_size_logits():
    head = PlainHead(3, 16, num_classes=5, sampler={"type": LowerHalf})
    assert head.sampler.context is head
    logits, samples = torch.randn(2, 5, 8, 8), labelled((16, 12))
    label = torch.cat([sample.gt_sem_seg.data for sample in samples])
    full = F.interpolate(logits, (16, 12), mode="bilinear")
    want = (
        F.cross_entropy(full, label, ignore_index=255, reduction="none")[:, 8:].sum()
        / label.numel()
    )
    torch.testing.assert_close(head.loss_by_feat(logits, samples)["loss_ce"], want)


def test_one_channel_is_a_sigmoid():
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": True, "avg_non_ignore": True}
    head = PlainHead(3, 16, num_classes=2, out_channels=1, threshold=0.5, loss_decode=loss)
    logits, samples = torch.randn(2, 1, 8, 8), labelled((16, 12), num_classes=2)
    label = torch.cat([sample.gt_sem_seg.data for sample in samples])
    full = F.interpolate(logits, (16, 12), mode="bilinear")[:, 0]
    valid = label != 255
    want = F.binary_cross_entropy_with_logits(full[valid], label[valid].float())
    losses = head.loss_by_feat(logits, samples)
    torch.testing.assert_close(losses["loss_ce"], want)
    right = ((full > 0) == (label == 1))[valid].float().mean() * 100
    torch.testing.assert_close(losses["acc_seg"], right.view(1))


def test_bad_labels_name_the_image():
    samples = labelled((16, 12))
    samples[1].gt_sem_seg.data[0, 3, 3] = 77
    with pytest.raises(LabelError, match=r"^image_1\.png: .*77"):
        PlainHead(3, 16, num_classes=5).loss_by_feat(torch.randn(2, 5, 8, 8), samples)


@pytest.mark.parametrize(
    ("meta", "size"),
    [
        ({"img_shape": (9, 7)}, (9, 7)),
        ({"img_shape": (9, 7), "pad_shape": (12, 8, 3)}, (12, 8)),
        ({"img_shape": (9, 7), "pad_shape": None}, (9, 7)),
        ({"img_shape": torch.Size((9, 7)), "pad_shape": (12, 8)}, (9, 7)),
    ],
)
def test_predictions_have_the_size_that_the_metainfo_names(meta, size):
    head = FCNHead(in_channels=8, channels=4, num_classes=3, align_corners=True).eval()
    maps = [torch.randn(2, 8, 4, 4)]
    want = F.interpolate(head(maps), size, mode="bilinear", align_corners=True)
    assert torch.equal(head.predict(maps, [meta, {}], None), want)


def test_repr_and_registered_subclass():
    head = MODELS.build({"type": "TinyHead", "num_classes": 3})
    assert isinstance(head, TinyHead)
    assert "input_transform=None, ignore_index=255, align_corners=False" in repr(head)
