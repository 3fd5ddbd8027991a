"""loss_by_feat and predict_by_feat beside mmseg's, on random logits, labels, losses and metainfo."""

# SPDX-License-Identifier: Apache-2.0
import copy
import warnings

import pytest
import torch

from segfast import models, structures

pytest.importorskip("hypothesis")
upstream = pytest.importorskip("mmseg.models", exc_type=ImportError)
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mmengine.structures import PixelData as TheirPixels  # noqa: E402
from mmseg.structures import SegDataSample as TheirSample  # noqa: E402

SIZE = st.tuples(st.integers(1, 9), st.integers(1, 9))
LOSS = {"type": "CrossEntropyLoss"}


def heads(**options):
    """Both packages' FCNHead."""
    cfg = {
        "in_channels": 4,
        "channels": 4,
        "num_convs": 1,
        "dropout_ratio": 0,
        "in_index": 0,
        **options,
    }
    with warnings.catch_warnings(action="ignore"):
        return models.FCNHead(**copy.deepcopy(cfg)), upstream.FCNHead(**copy.deepcopy(cfg))


def as_samples(labels):
    ours = [structures.SegDataSample(gt_sem_seg=structures.PixelData(data=x)) for x in labels]
    return ours, [TheirSample(gt_sem_seg=TheirPixels(data=x)) for x in labels]


@st.composite
def losses_of_a_head(draw):
    """Settings of a head, logits and labels that upstream can take."""
    sigmoid = draw(st.booleans())
    num_classes = draw(st.integers(2, 6))
    one_channel = sigmoid and num_classes == 2 and draw(st.booleans())
    ignore_index = draw(st.sampled_from([255, num_classes - 1] if not one_channel else [255]))
    losses = []
    for _ in range(draw(st.integers(1, 2))):
        cfg = {
            **LOSS,
            "use_sigmoid": sigmoid,
            "loss_weight": draw(st.sampled_from([1.0, 0.4])),
            "avg_non_ignore": draw(st.booleans()),
            "loss_name": draw(st.sampled_from(["loss_ce", "loss_b"])),
        }
        # upstream looks up the class weight of ignored labels, too
        if not sigmoid and ignore_index < num_classes and draw(st.booleans()):
            cfg["class_weight"] = [0.5 + k for k in range(num_classes)]
        losses.append(cfg)
    options = {
        "num_classes": num_classes,
        "ignore_index": ignore_index,
        "align_corners": draw(st.booleans()),
        "loss_decode": losses if len(losses) > 1 or draw(st.booleans()) else losses[0],
    }
    if one_channel:
        options |= {"out_channels": 1, "threshold": 0.4}
    if not sigmoid and draw(st.booleans()):
        sampler = {"type": "OHEMPixelSampler", "min_kept": draw(st.integers(2, 50))}
        options["sampler"] = {**sampler, "thresh": draw(st.sampled_from([0.2, 0.6]))}
    torch.manual_seed(draw(st.integers(0, 2**31)))
    batch, size = draw(st.integers(1, 3)), draw(st.tuples(st.integers(2, 24), st.integers(2, 24)))
    logits = torch.randn(batch, 1 if one_channel else num_classes, *draw(SIZE)) * draw(
        st.sampled_from([0.1, 2.0, 8.0])
    )
    labels = torch.randint(0, num_classes, (batch, 1, *size))
    labels[torch.rand(labels.shape) < draw(st.sampled_from([0.0, 0.3]))] = ignore_index
    labels[0, 0, 0, 0] = 0  # upstream cannot take one channel without a valid label
    return options, logits, labels


@settings(max_examples=300)
@given(losses_of_a_head())
def test_loss_by_feat(case):
    options, logits, labels = case
    found = []
    for head, samples in zip(heads(**options), as_samples(labels), strict=True):
        x = logits.clone().requires_grad_()
        with warnings.catch_warnings(action="ignore"):
            losses = head.loss_by_feat(x, samples)
        total = sum(value for name, value in losses.items() if "loss" in name)
        (grad,) = torch.autograd.grad(total, x)
        found.append((losses, grad))
    (ours, our_grad), (theirs, their_grad) = found
    accuracies = [losses.pop("acc_seg") for losses in (ours, theirs)]
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=2e-5, atol=2e-6)
    scale = float(their_grad.abs().max())
    torch.testing.assert_close(our_grad, their_grad, rtol=1e-3, atol=2e-5 * scale + 1e-8)
    if logits.shape[1] > 1:  # of one channel upstream counts the share of label 0
        assert accuracies[0].shape == accuracies[1].shape == (1,)
        # blends that rounding cannot tell apart may fall to either class
        assert abs(accuracies[0] - accuracies[1]) <= 100 * 1.01 / max(
            (labels != options["ignore_index"]).sum(), 1
        )


@settings(max_examples=200)
@given(SIZE, SIZE, SIZE, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_predict_by_feat(low, image, padded, has_pad_shape, is_slide, align_corners, seed):
    torch.manual_seed(seed)
    logits = torch.randn(2, 3, *low)
    meta = {"img_shape": torch.Size(image) if is_slide else image}
    if has_pad_shape:
        meta["pad_shape"] = (*padded, 3)
    with warnings.catch_warnings(action="ignore"):
        ours, theirs = (
            head.predict_by_feat(logits, [dict(meta), {}])
            for head in heads(num_classes=3, align_corners=align_corners)
        )
    assert torch.equal(ours, theirs)


def test_three_losses_are_three_times_the_loss_exactly():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 7, 6), torch.randint(0, 5, (2, 1, 24, 28))
    for i in (0, 1):
        once, thrice = (
            heads(num_classes=5, loss_decode=[LOSS] * count)[i].loss_by_feat(
                logits, as_samples(labels)[i]
            )
            for count in (1, 3)
        )
        assert thrice["loss_ce"] == once["loss_ce"] * 3


def test_metainfo_without_a_pad_shape_is_no_crash():
    """Training without ground truth leaves pad_shape None; upstream subscripts it."""
    ours, theirs = heads(num_classes=3)
    metas = [{"img_shape": (8, 9), "pad_shape": None}]
    assert ours.predict_by_feat(torch.randn(1, 3, 2, 2), metas).shape[2:] == (8, 9)
    with pytest.raises(TypeError):
        theirs.predict_by_feat(torch.randn(1, 3, 2, 2), metas)


def test_accuracy_of_one_channel_is_that_of_its_threshold():
    """Upstream's is the share of label 0, whatever was predicted."""
    options = {
        "num_classes": 2,
        "out_channels": 1,
        "threshold": 0.5,
        "loss_decode": {**LOSS, "use_sigmoid": True},
    }
    labels = torch.tensor([[[[0, 1], [1, 1]]]])
    logits = 8 * (labels.float() - 0.5)
    ours, theirs = (
        head.loss_by_feat(logits, samples)["acc_seg"].item()
        for head, samples in zip(heads(**options), as_samples(labels), strict=True)
    )
    assert ours == pytest.approx(100)
    assert theirs == pytest.approx(25)
