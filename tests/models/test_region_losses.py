"""Dice, focal, Lovasz and Tversky losses against twins written out in float64, and what holds for all of them."""

# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
import torch.nn.functional as F
from segmentor_parts import LargestTensor, NoWaiting

from segfast.errors import LabelError, UserError
from segfast.models import DiceLoss, FocalLoss, LovaszLoss, Segmentor, TverskyLoss, image_chunks
from segfast.models.named_losses import named_losses
from segfast.structures import PixelData, SegDataSample

WEIGHTS = [0.5, 2.0, 1.0, 0.25]
SHAPE = (3, 4, 6, 5)


def make(shape=SHAPE, *, stride=1, ignored=0.3, dtype=torch.uint8):
    logits = torch.randn(shape, dtype=torch.float64) * 2
    size = (shape[0], *(stride * length for length in shape[2:]))
    label = torch.randint(0, max(shape[1], 2), size)
    label[torch.rand(size) < ignored] = 255
    return logits.requires_grad_(), label.to(dtype)


def onehot_of(label, channels):
    """(N, C, H, W) one-hot, all 0 where ignored; one channel stands for class 1."""
    first = 1 if channels == 1 else 0
    return torch.stack([label == c + first for c in range(channels)], 1).double()


def probabilities(logits, sigmoid):
    return logits.sigmoid() if sigmoid or logits.shape[1] == 1 else logits.softmax(1)


def dice_twin(logits, label, *, sigmoid=True, naive=False, per_class=False, factors=None, eps=1e-3):
    losses = []
    for x, y in zip(logits, label, strict=True):
        keep = (y != 255).reshape(-1)
        p = probabilities(x[None], sigmoid)[0].flatten(1)[:, keep]
        t = onehot_of(y[None], len(x))[0].flatten(1)[:, keep]
        a = 2 * (p * t).sum(1)
        b = (p + t).sum(1) if naive else (p * p + t * t).sum(1)
        w = torch.ones(len(x)) if factors is None else torch.tensor(factors)
        if per_class:
            loss = (w * (1 - (a + eps) / (b + eps))).mean()
        elif naive:
            loss = 1 - ((w * a).sum() + eps) / ((w * b).sum() + eps)
        else:
            loss = 1 - (w * a).sum() / ((w * b).sum() + 2 * eps)
        losses.append(loss if keep.any() else loss * 0)
    return torch.stack(losses)


def assert_close(got, want, logits):
    torch.testing.assert_close(got, want, check_dtype=False, rtol=1e-6, atol=1e-7)
    gradients = [torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (got, want)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("naive", [False, True])
@pytest.mark.parametrize("per_class", [False, True])
def test_dice(channels, sigmoid, naive, per_class):
    logits, label = make((3, channels, 6, 5))
    for factors in (None, WEIGHTS[:channels]):
        settings = {"use_sigmoid": sigmoid, "naive_dice": naive, "per_class": per_class}
        loss = DiceLoss(**settings, class_weight=factors, reduction="none")(logits, label)
        twin = {"sigmoid": sigmoid, "naive": naive, "per_class": per_class, "factors": factors}
        assert_close(loss, dice_twin(logits, label, **twin), logits)


def tversky_twin(logits, label, factors=None, alpha=0.3, beta=0.7, smooth=1.0):
    p, t = probabilities(logits, False), onehot_of(label, logits.shape[1])
    keep = (label != 255).unsqueeze(1)
    tp, fp, fn = ((x * keep).sum((2, 3)) for x in (p * t, p * (1 - t), (1 - p) * t))
    loss = 1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)
    return (loss if factors is None else loss * torch.tensor(factors)).mean(1)


@pytest.mark.parametrize("channels", [1, 4])
def test_tversky(channels):
    logits, label = make((3, channels, 6, 5))
    for factors in (None, WEIGHTS[:channels]):
        loss = TverskyLoss(class_weight=factors, alpha=0.2, beta=0.8, smooth=2, reduction="none")
        twin = tversky_twin(logits, label, factors, 0.2, 0.8, 2)
        assert_close(loss(logits, label), twin, logits)


def focal_twin(logits, label, gamma, alpha, factors):
    t = onehot_of(label, logits.shape[1])
    p = logits.sigmoid()
    alpha, factors = (torch.as_tensor(x, dtype=torch.float64) for x in (alpha, factors))
    alpha, factors = (x.view(-1, 1, 1) if x.dim() else x for x in (alpha, factors))
    right = p * t + (1 - p) * (1 - t)
    loss = -(alpha * t + (1 - alpha) * (1 - t)) * (1 - right) ** gamma * right.log()
    return factors * loss * (label != 255).unsqueeze(1)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("gamma", [0, 0.5, 2.0])
def test_focal(channels, gamma):
    logits, label = make((3, channels, 6, 5))
    for alpha, factors in ((0.25, None), ([0.1, 0.9, 0.5, 0.3][:channels], WEIGHTS[:channels])):
        module = FocalLoss(gamma=gamma, alpha=alpha, class_weight=factors)
        want = focal_twin(logits, label, gamma, alpha, 1.0 if factors is None else factors)
        assert_close(module(logits, label, reduction_override="none"), want, logits)
        assert_close(module(logits, label), want.mean(), logits)
        assert_close(module(logits, label, reduction_override="sum"), want.sum(), logits)
        assert_close(module(logits, label, avg_factor=7.0), want.sum() / 7, logits)
        weight = torch.rand(label.shape)
        got = module(logits, label, weight)
        assert_close(got, (want * weight.unsqueeze(1)).mean(), logits)
        soft = onehot_of(label, channels)
        valid = (label != 255).float()
        assert_close(module(logits, soft, valid), want.mean(), logits)


def jaccard(chosen, is_class):
    """The Jaccard loss of a class if exactly the `chosen` pixels are wrong."""
    right = is_class & ~chosen
    union = is_class | chosen
    return 1 - right.sum().double() / union.sum() if union.any() else torch.tensor(0.0)


def lovasz_of_class(errors, is_class):
    """The Lovasz extension by its definition: errors in falling order times the set function's steps."""
    order = errors.argsort(descending=True)
    chosen, before, total = torch.zeros_like(is_class), 0.0, 0.0
    for i in order:
        chosen[i] = True
        now = jaccard(chosen, is_class)
        total, before = total + errors[i] * (now - before), now
    return total


def lovasz_twin(logits, label, classes, factors):
    keep = label.reshape(-1) != 255
    p = logits.softmax(1).transpose(0, 1).flatten(1)[:, keep]
    y = label.reshape(-1)[keep]
    wanted = range(len(p)) if isinstance(classes, str) else classes
    losses = [
        lovasz_of_class(((y == c).double() - p[c]).abs(), y == c) * (factors[c] if factors else 1)
        for c in wanted
        if classes != "present" or (y == c).any()
    ]
    return torch.stack(losses).mean() if losses else (logits * 0).sum()


@pytest.mark.parametrize("classes", ["present", "all", [1, 3]])
@pytest.mark.parametrize("factors", [None, WEIGHTS])
def test_lovasz_softmax(classes, factors):
    logits, label = make()
    label[label == 3] = 0  # an absent class
    label[1] = 255  # an image without a label
    settings = {"classes": classes, "class_weight": factors}
    assert_close(
        LovaszLoss(**settings)(logits, label), lovasz_twin(logits, label, classes, factors), logits
    )
    rows = zip(logits.split(1), label.split(1), strict=True)
    want = torch.stack([lovasz_twin(x, y, classes, factors) for x, y in rows if (y != 255).any()])
    per_image = LovaszLoss(**settings, per_image=True, reduction="none")
    got = per_image(logits, label)
    assert got[1] == 0
    assert_close(got[[0, 2]], want, logits)
    assert_close(per_image(logits, label, reduction_override="mean"), want.sum() / 3, logits)
    assert_close(per_image(logits, label, None, 5.0, "mean"), want.sum() / 5, logits)


def test_lovasz_hinge():
    logits, label = make((2, 1, 5, 4))
    keep = label.reshape(-1) != 255
    x, y = logits.reshape(-1)[keep], label.reshape(-1)[keep] == 1
    errors = 1 - x * (2.0 * y - 1)
    want = lovasz_of_class(errors.clamp(min=0), y)
    module = LovaszLoss("binary")
    assert_close(module(logits, label), want, logits)
    assert_close(module(logits.squeeze(1), label), want, logits)


def test_lovasz_steps_stay_exact_for_millions_of_pixels():
    label = torch.zeros(1, 1500, 1500, dtype=torch.uint8)
    label[0, :750] = 1
    logits = torch.zeros(1, 2, 1500, 1500)
    logits[0, 1] = torch.linspace(-1, 1, 1500 * 1500).view(1500, 1500)
    module = LovaszLoss()
    gradients = []
    for x in (logits, logits.double()):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(module(x, label), x)
        gradients.append(gradient.double())
    relative = (gradients[0] - gradients[1]).abs() / gradients[1].abs().clamp(min=1e-12)
    assert relative.median() < 1e-6  # differences of float32 Jaccard losses would leave 1e-2


ALL = [
    DiceLoss(),
    DiceLoss(use_sigmoid=False, per_class=True),
    FocalLoss(),
    LovaszLoss(),
    LovaszLoss(per_image=True),
    TverskyLoss(),
]


@pytest.mark.parametrize("module", ALL, ids=lambda m: type(m).__name__)
def test_what_every_loss_keeps(module):
    logits, label = make(stride=3)
    loss = module(logits, label, align_corners=True)
    full = F.interpolate(logits, label.shape[1:], mode="bilinear", align_corners=True)
    assert_close(loss, module(full, label), logits)  # logits of any size
    for dtype in (torch.int16, torch.int32, torch.int64):
        assert torch.equal(module(logits, label.to(dtype), align_corners=True), loss)
    moved = label.clone().masked_fill(label == 255, 200)
    assert torch.equal(module(logits, moved, ignore_index=200, align_corners=True), loss)
    moved_logits = logits + 5 * (torch.rand(SHAPE) - 0.5)
    ignored = torch.full_like(label, 255)
    nothing = module(moved_logits, ignored)  # nothing to learn: exactly 0, gradient 0
    assert nothing == 0
    assert not torch.autograd.grad(nothing, logits)[0].any()
    with pytest.raises(LabelError, match="200"):
        module(logits, moved)
    with pytest.raises(ValueError, match="avg_factor"):
        module(logits, label, avg_factor=3.0, reduction_override="sum")
    assert "loss" in module.loss_name
    assert not module.state_dict()


@pytest.mark.parametrize("module", ALL, ids=lambda m: type(m).__name__)
def test_pixels_of_weight_zero_are_ignored_pixels(module):
    logits, label = make(ignored=0)
    weight = (torch.rand(label.shape) < 0.5).float()
    hidden = label.masked_fill(weight == 0, 255)
    assert_close(module(logits, label, weight), module(logits, hidden), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("module", ALL, ids=lambda m: type(m).__name__)
def test_half_precision_and_extreme_logits(module, dtype):
    logits, label = make((2, 4, 300, 300))  # 90000 pixels: sums beyond float16's largest number
    half = (logits * 10).detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        loss = module(half, label)
    exact = module(half.double(), label)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-4, atol=1e-6)
    for scale in (1e4, -1e4):
        extreme = (logits.sign() * scale).detach().float().requires_grad_()
        loss = module(extreme, label)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(extreme.grad).all()


@pytest.mark.parametrize("module", ALL, ids=lambda m: type(m).__name__)
def test_perfect_predictions_cost_nothing_and_wrong_ones_do(module):
    _, label = make((2, 3, 8, 8), ignored=0.2)
    truth = (onehot_of(label, 3) * 2 - 1) * 40
    assert module(truth, label) < 2e-3
    assert module(-truth, label) > 0.3


def test_chunks_of_images_change_nothing(monkeypatch):
    logits, label = make((5, 4, 6, 5))
    for module in (DiceLoss(), TverskyLoss(), FocalLoss()):
        results = []
        for size in (1, 2 * 4 * 30, 1 << 24):
            monkeypatch.setattr(image_chunks, "_CHUNK_ELEMENTS", size)
            loss = module(logits.float(), label)
            results.append((loss, *torch.autograd.grad(loss, logits)))
        for result in results[1:]:
            torch.testing.assert_close(result, results[0], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "module", [DiceLoss(), TverskyLoss(), FocalLoss()], ids=lambda m: type(m).__name__
)
def test_one_chunk_of_full_size_probabilities_at_a_time(module, monkeypatch):
    monkeypatch.setattr(image_chunks, "_CHUNK_ELEMENTS", 1)
    logits, label = make((6, 10, 5, 5), stride=4)
    kept = []
    saving = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x)
    with LargestTensor() as seen, saving:
        loss = module(logits, label)
    num_kept = sum(x.numel() for x in kept if x.is_floating_point())
    assert num_kept < 2 * 10 * 20 * 20  # for the backward pass: not the probabilities of 6 images
    with seen:
        loss.backward()
    assert seen.largest == 10 * 20 * 20  # of one image, in the backward pass too


@pytest.mark.parametrize("weight", [None, torch.ones(3, 12, 10)])
@pytest.mark.parametrize("module", ALL, ids=lambda m: type(m).__name__)
def test_nothing_waits_for_the_device(module, weight):
    logits, label = make(stride=2)
    with NoWaiting():
        module(logits, label, weight).backward()


@pytest.mark.parametrize("module", [DiceLoss(), LovaszLoss()], ids=lambda m: type(m).__name__)
def test_compiles_to_one_graph(module):
    logits, label = make(stride=2)
    loss = module(logits, label)
    (want,) = torch.autograd.grad(loss, logits)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")(logits, label)
    torch.testing.assert_close(compiled, loss)
    torch.testing.assert_close(torch.autograd.grad(compiled, logits)[0], want)


def test_weights_of_images_and_other_ranks():
    logits, label = make()
    for module in (DiceLoss(), TverskyLoss()):
        each = module(logits, label, reduction_override="none")
        weight = torch.rand(3)
        torch.testing.assert_close(module(logits, label, weight), (each * weight).mean())
        torch.testing.assert_close(module(logits, label, avg_factor=2.0), each.sum() / 2)
        row = module(logits.flatten(2), label.flatten(1), reduction_override="none")
        torch.testing.assert_close(row, each)
        with pytest.raises(UserError, match=r"expected labels \(N, H, W\)"):
            module(logits, label[0])


def test_soft_dice_targets_and_probabilities():
    logits, label = make(ignored=0)
    loss = DiceLoss()(logits, label)
    torch.testing.assert_close(DiceLoss()(logits, onehot_of(label, 4)), loss)
    given = DiceLoss(activate=False)(logits.sigmoid(), label)
    torch.testing.assert_close(given, loss)


def test_an_ignored_class_leaves_its_channel_and_its_pixels():
    logits, label = make()
    hidden = label.masked_fill(label == 1, 255)
    rest = [0, 2, 3]
    renamed = hidden.clone()
    for new, old in enumerate(rest):
        renamed[hidden == old] = new
    want = DiceLoss()(logits[:, rest], renamed)
    for module, call in ((DiceLoss(ignore_index=1), {}), (DiceLoss(), {"ignore_index": 1})):
        given = label if module.ignore_index == 1 else hidden.masked_fill(hidden == 255, 1)
        torch.testing.assert_close(module(logits, given, **call), want)
    got = TverskyLoss(ignore_index=1, reduction="none")(logits, label)
    p, t = logits.softmax(1)[:, rest], onehot_of(renamed, 3)
    p = p * (hidden != 255).unsqueeze(1)
    tp = (p * t).sum((2, 3))
    fp, fn = p.sum((2, 3)) - tp, t.sum((2, 3)) - tp
    want = (1 - (tp + 1) / (tp + 0.3 * fp + 0.7 * fn + 1)).sum(1) / 4
    torch.testing.assert_close(got, want)


def test_rejections():
    logits, label = make()
    for module in (DiceLoss, TverskyLoss, FocalLoss, LovaszLoss):
        with pytest.raises(UserError, match=rf"{module.__name__}: class_weight has shape \(2,\)"):
            module(class_weight=[1, 2])(logits, label)
        with pytest.raises(UserError, match="reduction is"):
            module(reduction="average")
    with pytest.raises(AssertionError, match="alpha"):
        TverskyLoss(alpha=0.5, beta=0.6)
    with pytest.raises(AssertionError, match="sigmoid only"):
        FocalLoss(use_sigmoid=False)
    with pytest.raises(UserError, match="alpha has 3 values"):
        FocalLoss(alpha=[0.1, 0.2, 0.3])(logits, label)
    with pytest.raises(AssertionError, match="loss_type"):
        LovaszLoss("multiclass")
    with pytest.raises(AssertionError, match="classes"):
        LovaszLoss(classes="some")
    with pytest.raises(UserError, match="'binary' does not fit 4 output"):
        LovaszLoss("binary")(logits, label)
    with pytest.raises(UserError, match="'multi_class' does not fit 1 output"):
        LovaszLoss()(logits[:, :1], label)
    with pytest.raises(UserError, match=r"\[1, 4\] do not all lie"):
        LovaszLoss(classes=[1, 4])(logits, label)


def test_segmentors_hand_their_small_logits_over():
    loss = [
        {"type": "CrossEntropyLoss"},
        {"type": "DiceLoss", "loss_weight": 0.5},
        {"type": "LovaszLoss"},
    ]
    model = Segmentor(torch.nn.Conv2d(3, 4, 2, 2), loss)
    label = torch.randint(0, 4, (1, 8, 8), dtype=torch.uint8)
    sample = SegDataSample(gt_sem_seg=PixelData(data=label))
    image = torch.randn(1, 3, 8, 8)
    losses = model.loss(image, [sample])
    assert list(losses) == ["loss_ce", "loss_dice", "loss_lovasz", "acc_seg"]
    want = 0.5 * DiceLoss()(model.net(image), label)
    torch.testing.assert_close(losses["loss_dice"], want)
    logits = model.net(image)
    _, alone = named_losses([DiceLoss()], logits, label)  # no cross-entropy counts the right pixels
    torch.testing.assert_close(alone, losses["acc_seg"])
    assert math.isfinite(alone.item())
