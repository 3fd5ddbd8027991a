"""MixUp, CutMix and Mosaic: which pixels come from where, with their labels; and the losses of blended images."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentor_parts import NoWaiting
from torch import nn

from segfast.errors import ConfigError, UserError
from segfast.models import (
    CrossEntropyLoss,
    CutMix,
    DiceLoss,
    FCNHead,
    MixUp,
    Mosaic,
    SegDataPreProcessor,
    Segmentor,
    batch_augments,
)
from segfast.structures import PixelData, SegDataSample


def make_batch(count=4, height=9, width=7, **fields):
    """Images whose pixels say where they come from: (image, row, column); labels say the image."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    images = [torch.stack([torch.full_like(rows, i), rows, columns]).float() for i in range(count)]
    samples = []
    for i in range(count):
        label = torch.full((1, height, width), i, dtype=torch.uint8)
        maps = {name: PixelData(data=make(i, height, width)) for name, make in fields.items()}
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=label), **maps))
    return torch.stack(images), samples


def labels_of(samples, name="gt_sem_seg"):
    return torch.stack([getattr(sample, name).data for sample in samples])[:, 0]


def depth(i, height, width):
    return i + torch.rand(1, height, width) / 2


@pytest.mark.parametrize("augment", [CutMix(), CutMix(0.3), Mosaic(), Mosaic((0, 1))])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_images_and_all_maps_move_together(augment, count):
    for _ in range(20):
        images, samples = make_batch(count, gt_depth_map=depth)
        before = images.clone()
        mixed, returned = augment(images, samples)
        assert torch.equal(images, before)
        assert returned is samples
        assert mixed.shape == images.shape
        assert torch.equal(labels_of(samples), mixed[:, 0].to(torch.uint8))
        assert torch.equal(labels_of(samples, "gt_depth_map").floor(), mixed[:, 0])


def test_cutmix_pastes_one_window_of_the_neighbour():
    shares = []
    for _ in range(200):
        images, samples = make_batch(3, 20, 30)
        mixed, _ = CutMix()(images, samples)
        assert torch.equal(mixed[:, 1:], images[:, 1:])  # pixels stay where they were
        foreign = mixed[:, 0] != images[:, 0]
        assert torch.equal(foreign, foreign[:1].expand_as(foreign))
        rows, columns = foreign[0].any(1), foreign[0].any(0)
        assert torch.equal(foreign[0], rows[:, None] & columns)
        assert (rows.diff().sum() <= 2) & (columns.diff().sum() <= 2)
        assert torch.equal(mixed[:, 0][foreign], images.roll(1, 0)[:, 0][foreign])
        shares.append(foreign.float().mean().item())
    assert (
        0.15 < np.mean(shares) < 0.45
    )  # the window's share is uniform, less what leaves the image
    assert max(shares) > 0.7
    assert min(shares) < 0.05


def test_mosaic_has_four_windows_around_one_point():
    centers = set()
    for _ in range(50):
        images, samples = make_batch(4, 16, 20)
        mixed, _ = Mosaic()(images, samples)
        source = mixed[0, 0].long()
        rows, columns = (source[:, 0] == 0).sum().item(), (source[0] == 0).sum().item()
        assert 4 <= rows <= 12
        assert 5 <= columns <= 15
        centers.add((rows, columns))
        quadrants = [
            mixed[0, :, :rows, :columns],
            mixed[0, :, :rows, columns:],
            mixed[0, :, rows:, :columns],
            mixed[0, :, rows:, columns:],
        ]
        for shift, window in enumerate(quadrants):
            assert (window[0] == (0 - shift) % 4).all()
            assert (window[1].diff(dim=0) == 1).all()  # cut, not resized
            assert (window[2].diff(dim=1) == 1).all()
    assert len(centers) > 20


def test_mixup_blends_images_and_keeps_both_labels():
    shares = []
    for _ in range(100):
        images, samples = make_batch(3)
        mixed, _ = MixUp(1.0)(images, samples)
        share = samples[0].mix_share
        assert all(sample.mix_share == share for sample in samples)
        want = share * images + (1 - share) * images.roll(1, 0)
        torch.testing.assert_close(mixed, want)
        assert labels_of(samples)[:, 0, 0].tolist() == [0, 1, 2]
        assert labels_of(samples, "mixed_sem_seg")[:, 0, 0].tolist() == [2, 0, 1]
        assert samples[0].mixed_sem_seg.data.dtype == torch.uint8
        shares.append(share)
    assert 0.35 < np.mean(shares) < 0.65
    assert max(shares) - min(shares) > 0.8


def test_cutmix_after_mixup_moves_both_labels():
    for _ in range(10):
        images, samples = make_batch(3)
        images, samples = MixUp()(images, samples)
        _, samples = CutMix()(images, samples)
        own, other = labels_of(samples).long(), labels_of(samples, "mixed_sem_seg").long()
        assert torch.equal(other, (own - 1) % 3)
    with pytest.raises(UserError, match="not mixed before"):
        MixUp()(images, samples)


def test_soft_labels():
    images, samples = make_batch(3)
    samples[1].gt_sem_seg.data[:] = 255
    MixUp(num_classes=4)(images, samples)
    assert "mixed_sem_seg" not in samples[0]
    soft = torch.stack([sample.gt_sem_seg.data for sample in samples])
    assert soft.shape == (3, 4, 9, 7)
    share = soft[0, 0, 0, 0].item()
    want = torch.zeros(3, 4)
    want[0, 0], want[0, 2], want[1, 0], want[2, 2] = share, 1 - share, 1 - share, share
    torch.testing.assert_close(soft[..., 0, 0], want)


def test_random_numbers_follow_torchs_seed_and_differ_by_rank(monkeypatch):
    def draw():
        torch.manual_seed(3)
        return [batch_augments.batch_generator().random() for _ in range(3)]

    first = draw()
    assert draw() == first
    assert len(set(first)) == 3
    monkeypatch.setattr(batch_augments, "world", lambda: (1, 2))
    assert not set(draw()) & set(first)


@pytest.mark.parametrize("augment", [MixUp(), MixUp(num_classes=4), CutMix(), Mosaic()])
def test_nothing_waits_for_the_device(augment):
    images, samples = make_batch()
    rng = np.random.default_rng(0)
    with NoWaiting():
        augment.mix(images, samples, rng)
        Segmentor(nn.Conv2d(3, 4, 1)).loss(images, samples)


def test_probability():
    changed = 0
    for _ in range(200):
        images, samples = make_batch(2)
        mixed, _ = MixUp(prob=0.3)(images, samples)
        assert (mixed is images) == ("mixed_sem_seg" not in samples[0])
        changed += mixed is not images
    assert 35 < changed < 85


def test_configs_build_and_run_in_training_only():
    module = SegDataPreProcessor(
        batch_augments=[
            {"type": "CutMix", "prob": 0.0},
            {"type": "Mixup", "alpha": 1.0},
            MixUp(prob=0),
        ]
    )
    images, samples = make_batch(2)
    data = {"inputs": list(images), "data_samples": samples}
    out = module(data, training=True)
    assert "mixed_sem_seg" in out["data_samples"][0]
    assert "mixed_sem_seg" not in samples[0]  # the caller's samples stay as they are
    assert torch.equal(module(data)["inputs"], images)
    single = SegDataPreProcessor(batch_augments={"type": "Mosaic"})
    assert isinstance(single.batch_augments, Mosaic)
    with pytest.raises(ConfigError, match=r"batch_augments\[1\]\.aplha: .*did you mean alpha"):
        SegDataPreProcessor(batch_augments=[{"type": "CutMix"}, {"type": "MixUp", "aplha": 1}])
    with pytest.raises(ConfigError, match=r"batch_augments\.type: unknown model 'CutMixx'"):
        SegDataPreProcessor(batch_augments={"type": "CutMixx"})


def test_rejections():
    for make in (MixUp, CutMix):
        with pytest.raises(UserError, match="alpha should be above 0"):
            make(alpha=0)
        with pytest.raises(UserError, match="prob is a probability"):
            make(prob=1.5)
    with pytest.raises(UserError, match="center_range"):
        Mosaic((0.7, 0.3))
    images, samples = make_batch(2, gt_depth_map=depth)
    with pytest.raises(UserError, match="samples hold gt_depth_map, gt_sem_seg"):
        MixUp()(images, samples)
    del samples[0].gt_depth_map
    with pytest.raises(UserError, match="different maps: gt_depth_map, gt_sem_seg and gt_sem_seg"):
        CutMix()(images, samples)


class WithAux(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, 2)

    def forward(self, x):
        logits = self.conv(x)
        return {"out": logits, "aux": -logits}


LOSSES = [{"type": "CrossEntropyLoss", "avg_non_ignore": True}, {"type": "DiceLoss"}]


def blended_batch():
    images, samples = make_batch(3, 8, 8)
    for sample in samples:
        sample.gt_sem_seg.data = torch.randint(0, 4, (1, 8, 8), dtype=torch.uint8)
        sample.gt_sem_seg.data[0, 0] = 255
    return MixUp(1.0)(images, samples)


def test_segmentors_weigh_the_losses_of_both_labels():
    images, samples = blended_batch()
    model = Segmentor(WithAux(), LOSSES)
    losses = model.loss(images, samples)
    share, logits = samples[0].mix_share, model.net(images)["out"]
    pair = [labels_of(samples), labels_of(samples, "mixed_sem_seg")]
    for name, module in (
        ("loss_ce", CrossEntropyLoss(avg_non_ignore=True)),
        ("loss_dice", DiceLoss()),
    ):
        for key, output, factor in ((name, logits, 1), (f"aux.{name}", -logits, 0.4)):
            own, other = (module(output, label, ignore_index=255) for label in pair)
            torch.testing.assert_close(losses[key], factor * (share * own + (1 - share) * other))
    full = F.interpolate(logits, (8, 8), mode="bilinear").argmax(1)
    own, other = ((full == label)[label != 255].float().mean() * 100 for label in pair)
    torch.testing.assert_close(losses["acc_seg"], (share * own + (1 - share) * other).view(1))


def test_two_hard_losses_are_the_loss_of_the_soft_labels():
    images, samples = blended_batch()
    share, classes = samples[0].mix_share, torch.arange(4).view(4, 1, 1)
    own, other = (
        (labels_of(samples, name)[:, None] == classes).float()
        for name in ("gt_sem_seg", "mixed_sem_seg")
    )
    soft = [SegDataSample(gt_sem_seg=PixelData(data=x)) for x in share * own + (1 - share) * other]
    model = Segmentor(nn.Conv2d(3, 4, 2, 2))
    torch.testing.assert_close(
        model.loss(images, samples)["loss_ce"], model.loss(images, soft)["loss_ce"]
    )


def test_decode_heads_weigh_them_alike():
    images, samples = blended_batch()
    head = FCNHead(in_channels=3, channels=4, num_convs=1, num_classes=4, loss_decode=LOSSES)
    model = Segmentor(nn.Conv2d(3, 4, 2, 2), LOSSES)
    logits = model.net(images)
    theirs, ours = head.loss_by_feat(logits, samples), model.loss(images, samples)
    assert list(theirs) == list(ours)
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value)


def test_training_with_all_of_them_learns():
    model = Segmentor(
        nn.Conv2d(3, 4, 1),
        data_preprocessor={
            "type": "SegDataPreProcessor",
            "batch_augments": [
                {"type": name, "prob": 0.7} for name in ("Mosaic", "CutMix", "MixUp")
            ],
        },
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    totals = []
    for _ in range(150):
        images, samples = make_batch(4, 8, 8)
        data = model.data_preprocessor(
            {"inputs": list(images[:, :1].repeat(1, 3, 1, 1) / 3), "data_samples": samples}, True
        )
        loss, _ = model.parse_losses(model(**data, mode="loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert np.mean(totals[-20:]) < np.mean(totals[:20]) - 0.05
