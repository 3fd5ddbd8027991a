"""Sliding windows: where they lie, that their mean is right, and that only one row of them is held."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F
from segmentor_parts import LargestTensor

from segfast.models.sliding_window import assemble, slide, window_starts


def obvious(inputs, logits_of, crop, stride):
    """Every window padded to the image's size and added, and divided by how many there were."""
    height, width = inputs.shape[2:]
    total = count = 0
    for y in range(
        0, max(height - crop[0] + stride[0] - 1, 0) // stride[0] * stride[0] + 1, stride[0]
    ):
        for x in range(
            0, max(width - crop[1] + stride[1] - 1, 0) // stride[1] * stride[1] + 1, stride[1]
        ):
            bottom, right = min(y + crop[0], height), min(x + crop[1], width)
            top, left = max(bottom - crop[0], 0), max(right - crop[1], 0)
            logits = logits_of(inputs[:, :, top:bottom, left:right])
            around = (left, width - right, top, height - bottom)
            total = total + F.pad(logits, around)
            count = count + F.pad(torch.ones_like(logits[:, :1]), around)
    assert (count > 0).all()
    return total / count


def window_logits(crop):
    """Depends on the place in the window, so that order and offsets matter."""
    ramp = torch.linspace(0, 1, crop.shape[3])
    return torch.cat([crop.cumsum(2), crop * ramp], dim=1)


@pytest.mark.parametrize(
    ("length", "crop", "stride", "starts"),
    [(10, 4, 3, [0, 3, 6]), (11, 4, 3, [0, 3, 6, 7]), (4, 4, 2, [0]), (3, 4, 2, [0]), (5, 4, 4, [0, 1])],
)  # fmt: skip
def test_window_starts(length, crop, stride, starts):
    assert window_starts(length, crop, stride) == starts


CASES = [
    ((24, 30), (8, 10), (5, 7)), ((24, 30), (24, 30), (3, 3)), ((7, 9), (8, 10), (8, 10)), ((40, 13), (6, 13), (2, 5)),
    ((9, 40), (16, 6), (16, 6)), ((1, 1), (3, 3), (2, 2)), ((17, 19), (5, 5), (5, 5)),
]  # fmt: skip


@pytest.mark.parametrize(("size", "crop", "stride"), CASES, ids=str)
def test_the_mean_of_all_windows(size, crop, stride):
    inputs = torch.randn(2, 3, *size)
    want = obvious(inputs, window_logits, crop, stride)
    rows = list(slide(inputs, window_logits, crop, stride))
    assert [top for top, _ in rows] == window_starts(size[0], crop[0], stride[0])
    assert torch.equal(assemble(iter(rows), size[0]), want)


@pytest.mark.parametrize(("size", "crop", "stride"), CASES, ids=str)
def test_a_gaussian_weighs_each_window(size, crop, stride):
    inputs = torch.randn(2, 3, *size)
    same = assemble(slide(inputs, lambda w: w, crop, stride, gaussian=True), size[0])
    torch.testing.assert_close(same, inputs)

    def weighed(w):
        steps = [torch.arange(n) - (n - 1) / 2 for n in w.shape[2:]]
        y, x = (torch.exp(-(s**2) / (2 * (len(s) / 8) ** 2)) for s in steps)
        return torch.cat([window_logits(w), torch.ones_like(w[:, :1])], 1) * (y[:, None] * x)

    total = obvious(inputs, weighed, crop, stride)
    got = assemble(slide(inputs, window_logits, crop, stride, gaussian=True), size[0])
    torch.testing.assert_close(got, total[:, :-1] / total[:, -1:], rtol=1e-4, atol=1e-5)


def test_half_precision_is_averaged_in_float32():
    inputs = torch.randn(1, 3, 20, 20)
    logits = assemble(slide(inputs, lambda w: w.half(), (8, 8), (3, 3)), 20)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, inputs.half().float())


def test_one_row_of_windows_is_all_that_is_held():
    inputs = torch.randn(1, 3, 400, 30)
    with LargestTensor() as seen:
        rows = sum(part.shape[2] for _, part in slide(inputs, window_logits, (20, 20), (10, 10)))
    assert rows == 400
    assert seen.largest == 6 * 20 * 30
