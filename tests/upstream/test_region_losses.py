"""Dice, focal, Lovasz and Tversky losses beside mmseg's where those are right; the differences where they are not."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F

from segfast.models import DiceLoss, FocalLoss, LovaszLoss, TverskyLoss

pytest.importorskip("hypothesis")
losses = pytest.importorskip("mmseg.models.losses", exc_type=ImportError)
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402


@st.composite
def maps(draw, *, least=2, ignored=0.3):
    """Logits (N, C, H, W) float64 and labels int64, of which some are 255 and at least two are not."""
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(least, 5)),
        *draw(st.sampled_from([(4, 3), (1, 2), (6, 7)])),
    )
    torch.manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(shape, dtype=torch.float64) * draw(st.sampled_from([0.3, 4.0]))
    label = torch.randint(0, max(shape[1], 2), (shape[0], *shape[2:]))
    label[torch.rand(label.shape) < draw(st.sampled_from([0.0, ignored]))] = 255
    label[:, 0, :2] = torch.arange(2)  # every image has both classes 0 and 1
    return logits, label


def factors_for(draw, logits):
    if draw(st.booleans()):
        return None
    return draw(st.lists(st.floats(0.1, 3), min_size=logits.shape[1], max_size=logits.shape[1]))


def assert_same(ours, theirs, logits, *targets, atol=1e-7, **options):
    """Values and gradients; theirs count in float32, whatever the logits' dtype."""
    pair = []
    for module in (ours, theirs):
        x = logits.clone().requires_grad_()
        loss = module(x, *targets, **options)
        pair.append((loss.detach(), *torch.autograd.grad(loss.sum(), x)))
    torch.testing.assert_close(*pair, rtol=2e-5, atol=atol, check_dtype=False)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_dice(data):
    logits, label = data.draw(maps(ignored=0.0))
    arguments = {
        "use_sigmoid": data.draw(st.booleans()),
        "naive_dice": data.draw(st.booleans()),
        "reduction": data.draw(st.sampled_from(["mean", "sum", "none"])),
        "loss_weight": data.draw(st.sampled_from([1.0, 3.0])),
        "eps": data.draw(st.sampled_from([1e-3, 1.0])),
        "activate": data.draw(st.booleans()),
    }
    options = {"weight": torch.rand(len(logits))} if data.draw(st.booleans()) else {}
    soft = F.one_hot(label, logits.shape[1]).permute(0, 3, 1, 2)
    for target in (label, soft):
        assert_same(DiceLoss(**arguments), losses.DiceLoss(**arguments), logits, target, **options)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_tversky(data):
    logits, label = data.draw(maps())
    alpha = data.draw(st.sampled_from([0.3, 0.5, 0.75]))
    arguments = {
        "alpha": alpha,
        "beta": 1 - alpha,
        "smooth": data.draw(st.sampled_from([1, 0.1])),
        "class_weight": factors_for(data.draw, logits),
        "ignore_index": data.draw(st.sampled_from([255, 255, 1])),
        "loss_weight": 0.7,
    }
    if arguments["ignore_index"] == 1:
        label[label == 255] = 0
    assert_same(TverskyLoss(**arguments), losses.TverskyLoss(**arguments), logits, label)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_lovasz(data):
    binary = data.draw(st.booleans())
    logits, label = data.draw(maps(least=1 if binary else 2))
    per_image = data.draw(st.booleans())
    classes = "present" if binary else data.draw(st.sampled_from(["present", "all", [0], [1, 0]]))
    arguments = {
        "loss_type": "binary" if binary else "multi_class",
        "classes": classes,
        "per_image": per_image,
        "reduction": data.draw(st.sampled_from(["mean", "sum", "none"])) if per_image else "none",
        "class_weight": None if binary else factors_for(data.draw, logits),
    }
    if binary:
        logits, label = logits[:, :1], label.where((label < 2) | (label == 255), 0)
    options = {"avg_factor": 3.0} if per_image and arguments["reduction"] == "mean" else {}
    assert_same(
        LovaszLoss(**arguments),
        losses.LovaszLoss(**arguments),
        logits.float(),  # all that theirs can take
        label,
        atol=3e-5,  # errors that float32 cannot tell apart may change places
        ignore_index=255,
        **options,
    )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_focal(data):
    logits, label = data.draw(maps(least=1))
    channels = logits.shape[1]
    alpha = data.draw(st.sampled_from([0.25, [0.1, 0.9, 0.5, 0.3, 0.7][:channels]]))
    arguments = {
        "gamma": data.draw(st.sampled_from([1.0, 2.0, 3.5])),
        "alpha": alpha,
        "class_weight": factors_for(data.draw, logits),
        "reduction": data.draw(st.sampled_from(["mean", "sum", "none"])),
        "loss_weight": 2.0,
    }
    valid = (label != 255).float()
    first = 1 if channels == 1 else 0
    onehot = torch.stack([label == c + first for c in range(channels)], 1).double()
    options = (
        {}
        if arguments["reduction"] == "sum"
        else {"avg_factor": data.draw(st.sampled_from([None, 9.0]))}
    )
    theirs = losses.FocalLoss(**arguments)
    # One-hot targets: upstream's way on the CPU; labels: what its CUDA operator is documented to mean.
    assert_same(FocalLoss(**arguments), theirs, logits, onehot, valid.flatten(), **options)
    assert_same(
        lambda x: FocalLoss(**arguments)(x, label, **options),
        lambda x: theirs(x, onehot, valid.flatten(), **options),
        logits,
    )


def test_where_ours_differs_on_purpose():
    logits, label = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    hidden = label.clone()
    hidden[:, :2] = 255
    # Predictions on ignored pixels count in upstream's Dice.
    half = DiceLoss()(logits[:, :, 2:], label[:, 2:])
    torch.testing.assert_close(DiceLoss()(logits, hidden), half)
    assert not torch.isclose(losses.DiceLoss()(logits, hidden), half)
    # One channel: upstream's Dice takes class 0 for the region, its Tversky a softmax of one channel.
    one, binary = logits[:, :1], (label > 0).long()
    assert torch.isclose(losses.DiceLoss()(one, binary), DiceLoss()(one, 1 - binary))
    x = one.clone().requires_grad_()
    (nothing,) = torch.autograd.grad(losses.TverskyLoss()(x, binary), x)
    (something,) = torch.autograd.grad(TverskyLoss()(x, binary), x)
    assert not nothing.any()
    assert something.any()
    # Integer labels on the CPU: upstream's focal loss reads one column of the one-hot labels.
    with pytest.raises((ValueError, RuntimeError)):
        losses.FocalLoss()(logits, label)
    FocalLoss()(logits, label)
    # Upstream refuses its own defaults, and gives no number where no pixel is valid.
    with pytest.raises(AssertionError):
        losses.LovaszLoss()
    empty = torch.full_like(label, 255)
    theirs = losses.LovaszLoss(reduction="none")(logits, empty, ignore_index=255)
    assert theirs.shape == (0, 3)
    assert LovaszLoss()(logits, empty) == 0
