"""OHEMPixelSampler: the pixels it keeps, against a selection written the obvious way."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F
from segmentor_parts import LargestTensor, labelled
from torch import nn

from segfast.errors import UserError
from segfast.models import FCNHead, OHEMPixelSampler

TWICE = [{"type": "CrossEntropyLoss", "loss_name": name} for name in ("loss_1", "loss_2")]


def make_head(num_classes=19, **kwargs):
    return FCNHead(in_channels=8, channels=4, num_classes=num_classes, **kwargs)


def obvious(logits, label, thresh, kept, ignore_index=255):
    """The hard pixels of (N, C, H, W) logits in float64, by boolean masks and sorts."""
    logits, valid = logits.double(), label != ignore_index
    loss = F.cross_entropy(logits, label, ignore_index=ignore_index, reduction="none")[valid]
    chosen = torch.zeros_like(loss)
    if thresh is None:
        chosen[loss.argsort(descending=True)[:kept]] = 1
    elif len(loss):
        prob = (-loss).exp()
        bound = prob.sort()[0][min(kept, len(prob) - 1)].clamp(min=thresh)
        chosen[prob < bound] = 1
    weight = torch.zeros(label.shape, dtype=torch.float64)
    weight[valid] = chosen
    return weight.float()


@pytest.mark.parametrize("losses", [TWICE[:1], TWICE], ids=["one loss", "two losses"])
def test_upstreams_cases(losses):
    head = make_head(loss_decode=losses)
    with pytest.raises(AssertionError, match="of one size"):
        OHEMPixelSampler(head).sample(torch.randn(1, 19, 45, 45), torch.zeros(1, 1, 89, 89))
    logits, label = torch.randn(1, 19, 45, 45), torch.randint(19, (1, 1, 45, 45))
    by_probability = OHEMPixelSampler(head, thresh=0.7, min_kept=200).sample(logits, label)
    assert by_probability.shape == (1, 45, 45)
    assert by_probability.sum() > 200
    assert OHEMPixelSampler(head, min_kept=200).sample(logits, label).sum() == 200
    with pytest.raises(AssertionError, match="min_kept"):
        OHEMPixelSampler(head, min_kept=1)
    with pytest.raises(AssertionError, match="probability"):
        OHEMPixelSampler(head, thresh=70)


@pytest.mark.parametrize("thresh", [None, 0.02, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("min_kept", [2, 40, 100_000])
@pytest.mark.parametrize("ignored", [0.0, 0.5, 1.0])
def test_the_same_pixels_as_the_obvious_way(thresh, min_kept, ignored):
    logits, label = 3 * torch.randn(2, 5, 9, 11), torch.randint(5, (2, 1, 9, 11))
    label[torch.rand(label.shape) < ignored] = 255
    sampler = OHEMPixelSampler(make_head(5), thresh, min_kept)
    weight = sampler.sample(logits, label.to(torch.uint8))
    assert weight.dtype == torch.float32
    assert torch.equal(weight, obvious(logits, label[:, 0], thresh, 2 * min_kept))


@pytest.mark.parametrize("thresh", [None, 0.5])
@pytest.mark.parametrize("align_corners", [False, True])
def test_small_logits_choose_as_resized_ones(thresh, align_corners):
    head = make_head(40, align_corners=align_corners)
    logits, label = torch.randn(2, 40, 5, 6), torch.randint(40, (2, 17, 23))
    label[:, :3] = 255
    sampler = OHEMPixelSampler(head, thresh, 30)
    full = F.interpolate(logits, (17, 23), mode="bilinear", align_corners=align_corners)
    with LargestTensor() as seen:
        weight = sampler.weigh(logits, label)
    assert torch.equal(weight, obvious(full, label, thresh, 60))
    assert seen.largest <= max(logits.numel(), label.numel())


def test_the_head_trains_on_the_chosen_pixels():
    sampler = {"type": "OHEMPixelSampler", "min_kept": 20}
    head = make_head(5, sampler=sampler)
    assert head.sampler.context is head
    assert len(list(head.modules())) == len(list(make_head(5).modules()))
    logits, samples = torch.randn(2, 5, 6, 6), labelled((12, 12))
    label = torch.cat([sample.gt_sem_seg.data for sample in samples])
    full = F.interpolate(logits, (12, 12), mode="bilinear")
    loss = F.cross_entropy(full, label, ignore_index=255, reduction="none")
    want = (loss * obvious(full, label, None, 40)).sum() / label.numel()
    torch.testing.assert_close(head.loss_by_feat(logits, samples)["loss_ce"], want)


def test_one_channel_and_losses_without_pixels():
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": True}
    head = make_head(2, out_channels=1, threshold=0.5, loss_decode=loss)
    logits = torch.tensor([[[[-3.0, -1.0, 1.0, 3.0]]]])
    label = torch.tensor([[[[0, 1, 1, 0]]]])
    weight = OHEMPixelSampler(head, thresh=0.5, min_kept=2).sample(logits, label)
    assert weight.tolist() == [[[0, 1, 0, 1]]]
    assert OHEMPixelSampler(head, min_kept=2).sample(logits, label).tolist() == [[[0, 1, 0, 1]]]

    class Mean(nn.Module):
        def forward(self, seg_logit, label, reduction_override=None):
            return seg_logit.mean()

    with pytest.raises(UserError, match=r"Mean gives .*set thresh"):
        OHEMPixelSampler(make_head(5, loss_decode=Mean()), min_kept=2).sample(
            torch.randn(1, 5, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.long)
        )
