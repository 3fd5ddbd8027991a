"""More than 2^31 elements: offsets must be 64-bit. Slices of a large result against the same operator on the slice.

Every test runs on the CPU with a small side, which proves the test; on CUDA it needs up to 40 GB of free memory.
"""

# SPDX-License-Identifier: Apache-2.0

import fcntl
import tempfile
from pathlib import Path

import pytest
import torch

from segfast.ops import (
    confusion_matrix,
    cross_entropy,
    normalize_pad_stack,
    normalize_pad_stack_reference,
    pad_stack,
    upsample_argmax,
    upsample_confusion_matrix,
    upsample_cross_entropy,
)

GIB = 1 << 30


def sides(small, large, gib):
    """The same test with a small side on the CPU and a large one on CUDA, given enough memory."""
    on_cuda = pytest.param("cuda", large, gib, marks=[pytest.mark.cuda, pytest.mark.slow])
    return pytest.mark.parametrize(("device", "side", "gib"), [("cpu", small, 0), on_cuda])


@pytest.fixture(autouse=True)
def _enough_memory(gib):
    """One such test at a time, also among parallel workers, and none that would not fit."""
    if not gib:
        yield
        return
    with (Path(tempfile.gettempdir()) / "segfast_large_tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info()[0] / GIB
        if free < gib:
            pytest.skip(f"needs {gib} GiB of free device memory, {free:.0f} are")
        yield
        torch.cuda.empty_cache()


def rows_of(side):
    """The first rows, some that begin beyond half of everything, and the last."""
    return [slice(0, 3), slice(side // 2 + 1, side // 2 + 4), slice(side - 3, side)]


def draw(side, device):
    """A (side, side) uint8 map of 0 to 18: random rows, shifted; generating it all would take longer than the test."""
    columns = torch.randint(0, 19, (side,), device=device, dtype=torch.uint8)
    rows = torch.randint(0, 19, (side, 1), device=device, dtype=torch.uint8)
    return (columns + rows) % 19


def draw_logits(side, device):
    """(1, 19, side, side) bfloat16: another rotation of 0 to 18 at every pixel."""
    logits = torch.empty(1, 19, side, side, dtype=torch.bfloat16, device=device)
    plane = draw(side, device)
    for c in range(19):
        logits[0, c] = (plane + 5 * c) % 19
    return logits.requires_grad_()


def assert_alike(actual, expected):
    """As close as bfloat16 and another order of sums allow; a wrong offset is far off."""
    torch.testing.assert_close(actual.detach(), expected.detach(), rtol=1e-2, atol=1e-2)


@sides(40, 12001, 24)  # 19 x 12001 x 12001: 2.7e9 logits
def test_cross_entropy(device, side, gib):
    logits = draw_logits(side, device)
    target = draw(side, device)[None]
    loss = cross_entropy(logits, target, ignore_index=255, reduction="none")
    (grad,) = torch.autograd.grad(loss, logits, torch.ones_like(loss))
    for rows in rows_of(side):
        part = logits.detach()[:, :, rows].clone().requires_grad_()
        expected = cross_entropy(part, target[:, rows], ignore_index=255, reduction="none")
        assert_alike(loss[:, rows], expected)
        (part_grad,) = torch.autograd.grad(expected, part, torch.ones_like(expected))
        assert_alike(grad[:, :, rows], part_grad)
    assert all(grad[:, c].isfinite().all() for c in range(19))


@sides(40, 12001, 24)
def test_upsample_cross_entropy_of_many_logits(device, side, gib):
    """Down to 1/4, so that only offsets of logits and of their gradient are large."""
    side = side // 4 * 4
    logits = draw_logits(side, device)
    target = draw(side // 4, device)[None]
    loss = upsample_cross_entropy(logits, target, ignore_index=255, reduction="none")
    (grad,) = torch.autograd.grad(loss, logits, torch.ones_like(loss))
    for first in (0, side // 8 * 4, side - 8):
        part = logits.detach()[:, :, first : first + 8].clone().requires_grad_()
        labels = target[:, first // 4 : first // 4 + 2]
        expected = upsample_cross_entropy(part, labels, ignore_index=255, reduction="none")
        assert_alike(loss[:, first // 4 : first // 4 + 2], expected)
        (part_grad,) = torch.autograd.grad(expected, part, torch.ones_like(expected))
        assert_alike(grad[:, :, first : first + 8], part_grad)


@sides(12, 4700, 40)  # 47000 x 47000 pixels: 2.2e9
def test_upsample_cross_entropy_of_many_pixels(device, side, gib):
    logits = torch.randn(1, 3, side, side, device=device, requires_grad=True)
    target = draw(side * 10, device)[None].remainder_(3)
    loss, correct, valid = upsample_cross_entropy(
        logits, target, ignore_index=255, reduction="sum", return_accuracy=True
    )
    (grad,) = torch.autograd.grad(loss, logits)
    assert valid == target.numel()
    counts = upsample_confusion_matrix(logits.detach(), target)
    assert counts.sum() == target.numel()
    assert (counts.diagonal().sum() - correct).abs() <= 1e-5 * target.numel()
    for first in (0, side // 2, side - 6):
        part = logits.detach()[:, :, first : first + 6].clone().requires_grad_()
        labels = target[:, first * 10 : first * 10 + 60]
        (part_grad,) = torch.autograd.grad(
            upsample_cross_entropy(part, labels, ignore_index=255, reduction="sum"), part
        )
        inner = slice(2, 4)  # rows whose cells lie inside the slice
        assert_alike(grad[:, :, first : first + 6][:, :, inner], part_grad[:, :, inner])


@sides(12, 4700, 8)
def test_upsample_argmax(device, side, gib):
    logits = torch.randn(1, 3, side, side, device=device)
    pred = upsample_argmax(logits, (side * 10, side * 10), dtype=torch.uint8)
    for first in (0, side // 2, side - 6):
        part = upsample_argmax(logits[:, :, first : first + 6], (60, side * 10), dtype=torch.uint8)
        inner = slice(10, 50)  # away from the slice's rim, where the value would be constant
        differing = pred[:, first * 10 : first * 10 + 60][:, inner] != part[:, inner]
        assert differing.sum() <= 10  # two blends of a pixel may tie up to rounding


@sides(60, 46500, 10)  # 2.16e9 pixels
def test_confusion_matrix(device, side, gib):
    pred, target = draw(side, device), draw(side, device)
    pred[-1, -5:] = 18
    target[-1, -5:] = 255
    counts = confusion_matrix(pred, target, 19)
    assert counts.sum() == side * side - 5
    expected = torch.zeros_like(counts)
    for chunk in range(0, side, 7919):
        rows = slice(chunk, chunk + 7919)
        confusion_matrix(pred[rows], target[rows], 19, out=expected)
    assert torch.equal(counts, expected)


@sides(50, 27001, 20)  # 3 x 27001 x 27001: 2.2e9
def test_normalize_pad_stack(device, side, gib):
    image = torch.empty(3, side, side, dtype=torch.uint8, device=device).random_(0, 256)
    options = {"mean": (1.0, 2.0, 3.0), "std": (2.0, 3.0, 7.0), "dtype": torch.bfloat16}
    batch = normalize_pad_stack([image], **options)
    hwc = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(normalize_pad_stack([hwc], **options), batch)
    for rows in rows_of(side):
        expected = normalize_pad_stack_reference([image[:, rows]], **options)
        assert torch.equal(batch[:, :, rows], expected)


@sides(60, 46500, 8)
def test_pad_stack(device, side, gib):
    label = torch.empty(side, side, dtype=torch.uint8, device=device).random_(0, 256)
    batch = pad_stack([label], size=(side + 1, side + 2), pad_value=7)
    assert torch.equal(batch[0, :side, :side], label)
    assert (batch[0, side] == 7).all()
    assert (batch[0, :, side:] == 7).all()
