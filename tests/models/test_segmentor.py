"""Segmentor: any output, any stride, losses equal to the eager composition, clear rejections."""

# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from segfast.errors import ConfigError, LabelError, UserError
from segfast.models import SegDataPreProcessor, Segmentor, SegNetS
from segfast.structures import PixelData, SegDataSample


class Toy(nn.Module):
    """One strided convolution; `wrap` shapes what comes out."""

    def __init__(self, num_classes=3, stride=1, wrap=None):
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, stride, stride)
        self.wrap = wrap or (lambda logits: logits)

    def forward(self, x):
        return self.wrap(self.conv(x))


def make_batch(*sizes, num_classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples, images = [], []
    for i, (h, w) in enumerate(sizes):
        label = torch.randint(0, num_classes, (1, h, w), generator=generator).to(torch.uint8)
        label[0, 0] = 255
        meta = {"ori_shape": (h, w), "img_path": f"image_{i}.png"}
        samples.append(SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=label)))
        images.append(torch.randint(0, 256, (3, h, w), generator=generator).to(torch.uint8))
    return {"inputs": images, "data_samples": samples}


PREPROCESSOR = {"type": "SegDataPreProcessor", "mean": [127.5] * 3, "std": [50.0] * 3}


def run_loss(model, batch):
    data = model.data_preprocessor(batch, True)
    return model(**data, mode="loss"), data


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("align_corners", [False, True])
def test_loss_equals_the_eager_composition(stride, align_corners):
    model = Segmentor(
        Toy(stride=stride), align_corners=align_corners, data_preprocessor=PREPROCESSOR
    )
    losses, data = run_loss(model, make_batch((12, 16), (8, 10)))
    assert list(losses) == ["loss_ce", "acc_seg"]
    label = torch.cat([s.gt_sem_seg.data for s in data["data_samples"]]).long()
    logits = model(data["inputs"])
    assert logits.shape[2:] == (12 // stride, 16 // stride)
    full = F.interpolate(logits, (12, 16), mode="bilinear", align_corners=align_corners)
    want = F.cross_entropy(full, label, ignore_index=255, reduction="sum") / label.numel()
    torch.testing.assert_close(losses["loss_ce"], want)
    valid = label != 255
    right = (full.argmax(1) == label)[valid].float().mean() * 100
    torch.testing.assert_close(losses["acc_seg"], right.view(1))
    weight = model.net.conv.weight
    got_grad, want_grad = (torch.autograd.grad(x, weight)[0] for x in (losses["loss_ce"], want))
    torch.testing.assert_close(got_grad, want_grad)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any float tensor of the batch's operators had."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                self.largest = max(self.largest, value.numel())
        return out


def test_training_never_holds_full_size_logits():
    model = Segmentor(Toy(num_classes=16, stride=4), num_classes=16)
    batch = make_batch((32, 32), (32, 32), num_classes=16)
    with LargestTensor() as seen:
        losses, data = run_loss(model, batch)
        losses["loss_ce"].backward()
    assert seen.largest == data["inputs"].numel()
    assert seen.largest < 2 * 16 * 32 * 32


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda x: {"out": x}, None),
        (lambda x: {"logits": x}, None),
        (lambda x: SimpleNamespace(logits=x), None),
        (lambda x: SimpleNamespace(seg=x), "seg"),
        (lambda x: {"seg": x, "other": 1}, "seg"),
        (lambda x: (x, None), 0),
    ],
)
def test_logits_are_found_in_what_the_network_returns(wrap, output):
    net = Toy()
    batch = make_batch((8, 8))
    want, _ = run_loss(Segmentor(net), batch)
    net.wrap = wrap
    losses, _ = run_loss(Segmentor(net, output=output), batch)
    assert torch.equal(losses["loss_ce"], want["loss_ce"])


def test_unusable_outputs_are_named():
    for wrap, output, text in (
        (lambda x: {"a": x, "b": x}, None, r"dict with keys \['a', 'b'\].*set output="),
        (lambda x: (x, x), None, "tuple.*set output="),
        (lambda x: (x, x), 2, "tuple.*set output="),
        (lambda x: x.mean(1), None, r"Tensor \(1, 8, 8\)"),
    ):
        with pytest.raises(UserError, match=text):
            run_loss(Segmentor(Toy(wrap=wrap), output=output), make_batch((8, 8)))


def test_auxiliary_output_counts_two_fifths():
    model = Segmentor(Toy(wrap=lambda x: {"out": x, "aux": x[:, :, ::2, ::2]}))
    losses, data = run_loss(model, make_batch((8, 8)))
    assert list(losses) == ["loss_ce", "acc_seg", "aux.loss_ce"]
    small = model.net.conv(data["inputs"])[:, :, ::2, ::2]
    full = F.interpolate(small, (8, 8), mode="bilinear")
    label = data["data_samples"][0].gt_sem_seg.data.long()
    want = 0.4 * F.cross_entropy(full, label, ignore_index=255, reduction="sum") / 64
    torch.testing.assert_close(losses["aux.loss_ce"], want)
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(total, losses["loss_ce"] + losses["aux.loss_ce"])


def test_several_losses_and_foreign_ones():
    cross_entropy = {"type": "CrossEntropyLoss"}
    batch = make_batch((8, 8))
    net = Toy(stride=2)
    one, data = run_loss(Segmentor(net, cross_entropy), batch)
    three, _ = run_loss(Segmentor(net, [cross_entropy] * 3), batch)
    assert three["loss_ce"].item() == (3 * one["loss_ce"]).item()
    foreign = {"type": "torch.nn.CrossEntropyLoss", "ignore_index": 255}
    losses, _ = run_loss(Segmentor(net, foreign), batch)
    full = F.interpolate(net(data["inputs"]), (8, 8), mode="bilinear")
    label = data["data_samples"][0].gt_sem_seg.data.long()
    want = F.cross_entropy(full, label, ignore_index=255)
    torch.testing.assert_close(losses["loss_crossentropyloss"], want)
    torch.testing.assert_close(losses["acc_seg"], one["acc_seg"])


@pytest.mark.parametrize("keep_logits", [True, False])
@pytest.mark.parametrize("stride", [1, 4])
def test_predictions_come_back_at_the_original_sizes(keep_logits, stride):
    cfg = {"keep_logits": keep_logits}
    model = Segmentor(Toy(stride=stride), test_cfg=cfg, data_preprocessor=PREPROCESSOR).eval()
    batch = make_batch((12, 16), (8, 10))
    batch["data_samples"][1].set_metainfo({"ori_shape": (19, 7)})
    with torch.no_grad():
        results = model.test_step(batch)
        inputs = model.data_preprocessor(batch, False)["inputs"]
        full = F.interpolate(model(inputs), (12, 16), mode="bilinear")
    wants = [full[:1], F.interpolate(full[1:, :, :8, :10], (19, 7), mode="bilinear")]
    for result, want in zip(results, wants, strict=True):
        assert result.pred_sem_seg.data.dtype == torch.int64
        assert torch.equal(result.pred_sem_seg.data, want.argmax(1))
        assert ("seg_logits" in result) is keep_logits
        if keep_logits:
            torch.testing.assert_close(result.seg_logits.data, want[0])
    assert "pred_sem_seg" not in batch["data_samples"][0]


@pytest.mark.parametrize(
    ("asked", "in_validation", "in_test"),
    [(None, False, True), (True, True, True), (False, False, False)],
)
def test_validation_carries_no_logits_nobody_asked_for(asked, in_validation, in_test):
    cfg = {} if asked is None else {"keep_logits": asked}
    model = Segmentor(Toy(stride=2), test_cfg=cfg, data_preprocessor=PREPROCESSOR).eval()
    batch = make_batch((8, 8))
    with torch.no_grad():
        validated, tested = model.val_step(batch), model.test_step(batch)
        data = model.data_preprocessor(batch, False)
        predicted = model(**data, mode="predict")
    assert ["seg_logits" in s for s in (validated[0], tested[0], predicted[0])] == [
        in_validation,
        in_test,
        in_test,
    ]
    assert torch.equal(validated[0].pred_sem_seg.data, tested[0].pred_sem_seg.data)


def test_a_failed_validation_leaves_no_trace():
    model = Segmentor(Toy(stride=2), data_preprocessor=PREPROCESSOR).eval()
    with pytest.raises(TypeError):
        model.val_step(None)
    assert "seg_logits" in model.test_step(make_batch((8, 8)))[0]


def test_prediction_without_samples():
    model = Segmentor(Toy(stride=2))
    (result,) = model.predict(torch.rand(1, 3, 8, 8))
    assert result.pred_sem_seg.shape == (8, 8)
    assert model.encode_decode(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)


def test_one_channel_uses_a_sigmoid_and_a_threshold():
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": True}
    model = Segmentor(Toy(1, stride=2), loss, num_classes=2, test_cfg={"threshold": 0.3})
    losses, data = run_loss(model, make_batch((8, 8), num_classes=2))
    assert losses["loss_ce"].requires_grad
    (result,) = model.predict(data["inputs"], data["data_samples"])
    probability = model.encode_decode(data["inputs"]).sigmoid()
    torch.testing.assert_close(result.seg_logits.data, probability[0])
    assert torch.equal(result.pred_sem_seg.data, (probability[0] > 0.3).long())
    with pytest.raises(UserError, match="softmax over one channel"):
        run_loss(Segmentor(Toy(1)), make_batch((8, 8), num_classes=2))


def test_parts_may_be_configs_and_errors_carry_their_path():
    model = Segmentor({"type": "SegNetS", "num_classes": 4, "width": 8}, num_classes=4)
    assert isinstance(model.net, SegNetS)
    assert isinstance(model.data_preprocessor, SegDataPreProcessor)
    with pytest.raises(ConfigError, match=r"^net\.num_class: .*did you mean num_classes"):
        Segmentor({"type": "SegNetS", "num_class": 4})
    with pytest.raises(ConfigError, match=r"^loss\.type: .*CrossEntropyLoss"):
        Segmentor(Toy(), {"type": "CrossEntropyLos"})
    with pytest.raises(ConfigError, match=r"^test_cfg\.mode: "):
        Segmentor(Toy(), test_cfg={"mode": "slides"})
    with pytest.raises(ConfigError, match=r"^test_cfg\.keep: "):
        Segmentor(Toy(), test_cfg={"keep": 1})


def test_wrong_num_classes_and_labels_are_explained():
    with pytest.raises(UserError, match="num_classes is 11, but Toy has 3 output channels"):
        run_loss(Segmentor(Toy(), num_classes=11), make_batch((8, 8)))
    batch = make_batch((8, 8), (8, 8))
    batch["data_samples"][1].gt_sem_seg.data[0, 3, 3] = 200
    with pytest.raises(LabelError, match=r"^image_1\.png: .*200"):
        run_loss(Segmentor(Toy()), batch)


def test_mode_dispatch():
    model = Segmentor(Toy())
    assert torch.equal(model(torch.ones(1, 3, 4, 4)), model.net(torch.ones(1, 3, 4, 4)))
    with pytest.raises(RuntimeError, match="mode"):
        model(torch.ones(1, 3, 4, 4), mode="train")


class FakeOptim:
    def __init__(self, model):
        self.optim = torch.optim.AdamW(model.parameters(), 0.01)

    def optim_context(self, model):
        return torch.enable_grad()

    def update_params(self, loss):
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()


def test_overfits_four_images_of_different_sizes():
    torch.manual_seed(0)
    batch = make_batch((24, 32), (28, 24), (32, 32), (30, 26))
    for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
        h, w = image.shape[1:]
        label = sample.gt_sem_seg.data[0]
        label.zero_()
        label[: h // 2, : w // 2], label[h // 2 :, w // 3 :] = 1, 2
        image[:] = (
            torch.tensor([[200, 30, 30], [30, 200, 30], [30, 30, 200]])
            .to(torch.uint8)[label.long()]
            .permute(2, 0, 1)
        )
    model = Segmentor(SegNetS(3, width=8), num_classes=3, data_preprocessor=PREPROCESSOR)
    optim = FakeOptim(model)
    history = [model.train_step(batch, optim) for _ in range(60)]
    assert list(history[0]) == ["loss", "loss_ce", "acc_seg"]
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]
    assert history[-1]["acc_seg"] > 93
    model.eval()
    with torch.no_grad():
        results = model.val_step(batch)
    for result, sample in zip(results, batch["data_samples"], strict=True):
        agreement = result.pred_sem_seg.data == sample.gt_sem_seg.data
        assert agreement.float().mean() > 0.9


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 32)])
def test_built_in_network_takes_any_size(size):
    net = SegNetS(11).eval()
    logits = net(torch.randn(2, 3, *size))
    assert logits.shape == (2, 11, -(-size[0] // 4), -(-size[1] // 4))
    assert sum(p.numel() for p in net.parameters()) < 1_000_000


def test_windows_slide_over_any_network():
    cfg = {"mode": "slide", "crop_size": (8, 8), "stride": 8}
    net = Toy()  # one 1 x 1 convolution: the window does not matter
    slides, whole = Segmentor(net, test_cfg=cfg), Segmentor(net)
    batch = make_batch((20, 13))
    with torch.no_grad():
        (a,), (b,) = slides.test_step(batch), whole.test_step(batch)
        (c,) = slides.val_step(batch)
    torch.testing.assert_close(a.seg_logits.data, b.seg_logits.data)
    assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data)
    assert torch.equal(c.pred_sem_seg.data, b.pred_sem_seg.data)
    assert "seg_logits" not in c
