"""Enormous sizes: one element expanded to billions, sizes whose products overflow. An operator says what is too large, and
neither overflows, nor ends the process, nor walks for hours over rows of nothing. On `meta` the same checks run."""

# SPDX-License-Identifier: Apache-2.0

import os
import re
import resource
from pathlib import Path

import pytest
import torch

from segfast import ops
from segfast.ops._checks import LONGEST_RESIZED, LONGEST_SIDE, MOST_CLASSES
from segfast.ops.pack_tensors import pack_tensors, packed_layout

HUGE = 2**40
sanitized = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="AddressSanitizer ends the process where an allocation fails",
)
NO_MEMORY = "out of memory|can't allocate|calculation overflowed|overflow"


def logits(*shape, device="cpu", grad=False):
    return torch.zeros(1, device=device, requires_grad=grad).expand(shape)


def labels(*shape, device="cpu"):
    return torch.zeros(1, dtype=torch.uint8, device=device).expand(shape)


devices = pytest.mark.parametrize("device", ["cpu", "meta"])
RESIZES = [
    ((1, HUGE, 1, 1), (1, 2, 2), "classes"),
    ((1, MOST_CLASSES + 1, 1, 1), (1, 2, 2), "classes"),
    ((1, 2, 1, HUGE), (1, 2, 2), "widths"),
    ((1, 2, LONGEST_RESIZED + 1, 1), (1, 2, 2), "heights"),
    ((1, 2, 1, 1), (1, HUGE, 1), "heights"),
    ((1, 2, 1, 1), (1, 1, 2**31), "widths"),
    ((1, 2, 1, 1), (1, 1, LONGEST_RESIZED + 1), "widths"),
]


@devices
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(("shape", "size", "word"), RESIZES)
def test_resizes_are_refused(shape, size, word, grad, device):
    x, y = logits(*shape, device=device, grad=grad), labels(*size, device=device)
    with pytest.raises(ValueError, match=f"expected .*{word}.* at most|at most .* {word}"):
        ops.upsample_cross_entropy(x, y)
    with pytest.raises(ValueError, match=f"expected .*{word}.* at most|at most .* {word}"):
        ops.upsample_confusion_matrix(x, y)
    with pytest.raises(ValueError, match=f"expected .*{word}.* at most|at most .* {word}"):
        ops.upsample_argmax(x, size[1:])


@devices
@pytest.mark.parametrize("classes", [MOST_CLASSES + 1, 2**31, HUGE])
def test_class_counts_are_refused(classes, device):
    with pytest.raises(ValueError, match=f"at most {MOST_CLASSES} classes, got {classes}"):
        ops.cross_entropy(logits(1, classes, 1, device=device), labels(1, 1, device=device))
    with pytest.raises(ValueError, match="at most 16777216 channels"):
        ops.normalize_pad_stack([logits(classes, 1, 1, device=device)], [0.0], [1.0])


@devices
@pytest.mark.parametrize("size", [(LONGEST_SIDE + 1, 1), (1, HUGE), (2**63, 0)])
def test_padded_sizes_are_refused(size, device):
    for channels in (0, 3):  # no channels: no elements, but as many rows
        with pytest.raises(ValueError, match="heights and widths of at most"):
            ops.normalize_pad_stack([torch.zeros(channels, 1, 0, device=device)], size=size)
    with pytest.raises(ValueError, match="heights and widths of at most"):
        ops.pad_stack([labels(1, 0, device=device)], size=size)
    with pytest.raises(ValueError, match="heights and widths of at most"):
        ops.pad_stack([labels(1, 1, device=device)], size_divisor=HUGE)


def test_rows_of_nothing_take_no_time():
    tall = (LONGEST_SIDE, 0)
    assert ops.normalize_pad_stack([torch.zeros(3, 4, 0)], size=tall).shape == (1, 3, *tall)
    longest = (LONGEST_SIDE, LONGEST_SIDE)
    assert ops.normalize_pad_stack([torch.zeros(0, 4, 4)], size=longest).shape[1] == 0
    assert ops.pad_stack([labels(4, 0)], size=tall).shape == (1, *tall)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        ("cross_entropy", (HUGE, 2), (HUGE,)),
        ("cross_entropy", (HUGE, 2, 1, 1), (HUGE, 1, 1)),
        ("cross_entropy", (1, 2, HUGE, 1), (1, HUGE, 1)),
        ("cross_entropy", (1, 2, 2**20, 2**20, 2**20), (1, 2**20, 2**20, 2**20)),
        ("upsample_cross_entropy", (HUGE, 2, 1, 1), (HUGE, 2, 2)),
        ("upsample_cross_entropy", (1, 2**20, 2**22, 1), (1, 2, 2)),
    ],
)
def test_losses_run_out_of_memory(name, shape, size, grad, reduction):
    if not grad and shape[2:3] == (2**22,):
        pytest.skip("what is allocated is the gradient")
    x, y = logits(*shape, grad=grad), labels(*size)
    with pytest.raises(RuntimeError, match=NO_MEMORY):
        getattr(ops, name)(x, y, reduction=reduction).sum().backward()


@pytest.mark.parametrize("name", ["cross_entropy", "upsample_cross_entropy"])
@pytest.mark.parametrize("grad", [False, True])
def test_meta_losses_have_any_number_of_pixels(name, grad):
    x, y = logits(2**20, 2, 2**10, 2**10, device="meta", grad=grad), labels(2**20, 2**10, 2**10)
    loss = getattr(ops, name)(x, y.to("meta"))
    assert loss.shape == ()
    if grad:
        loss.backward()


@sanitized
def test_scratch_that_does_not_fit():
    """A task's rows of 2^24 classes: the kernel's own allocation fails, inside torch's threads."""
    x, y = logits(1, MOST_CLASSES, 1, 2**20), labels(1, 2, 2)
    with pytest.raises(torch.OutOfMemoryError, match="working rows"):
        ops.upsample_cross_entropy(x, y)
    with pytest.raises(torch.OutOfMemoryError, match="working rows"):
        ops.upsample_argmax(x, (2, 2))


@sanitized
def test_working_arrays_that_do_not_fit():
    """One sum for each row of cells of 2^36 rows: std::bad_alloc becomes an error with words."""
    with pytest.raises(torch.OutOfMemoryError, match="working arrays"):
        ops.upsample_cross_entropy(logits(2**16, 2, 2**24, 1), labels(2**16, 1, 1))


@pytest.mark.parametrize("num_classes", [2**24, 2**31, 2**40, 2**63])
def test_enormous_counts_are_refused(num_classes):
    with pytest.raises((RuntimeError, TypeError), match=r"(?i)overflow|can't allocate"):
        ops.confusion_matrix(labels(1, 2, 2), labels(1, 2, 2), num_classes)


@pytest.mark.parametrize("size", [(2**24, 2**24), (2**63, 1), (HUGE, HUGE)])
def test_predictions_are_refused(size):
    for many in (1, 2**20):
        with pytest.raises((ValueError, RuntimeError), match=f"at most|{NO_MEMORY}"):
            ops.upsample_argmax(logits(many, 2, 1, 1), size)


def test_batches_are_refused():
    longest = (LONGEST_SIDE, LONGEST_SIDE)
    with pytest.raises(RuntimeError, match=NO_MEMORY):
        ops.normalize_pad_stack([logits(3, 4, 4)], size=longest)
    with pytest.raises(RuntimeError, match=NO_MEMORY):
        ops.pad_stack([labels(4, 4)] * 3, size=longest)


def test_buffers_are_refused():
    buffer = torch.zeros(256, dtype=torch.uint8)
    doubles = torch.zeros(1, dtype=torch.float64).expand(2**20, 2**20, 2**20)
    for tensors in ([doubles], [labels(2**55)] * 5):
        with pytest.raises(RuntimeError, match="no buffer holds"):
            packed_layout(tensors)
        with pytest.raises(RuntimeError, match="no buffer holds"):
            pack_tensors(tensors, buffer)
    with pytest.raises(RuntimeError, match="at least 1099511627776 bytes"):
        pack_tensors([labels(HUGE)], buffer)


def test_products_of_sizes_of_nothing_do_not_overflow():
    nothing = torch.empty(0, 1, 1).expand(0, HUGE, HUGE)
    for tensor in (nothing, nothing.as_strided(nothing.shape, (1, HUGE, 1))):
        layout = packed_layout([tensor, torch.ones(3)])
        assert layout.num_bytes == 256
        assert layout.strides[0] == tensor.stride()
        pack_tensors([tensor], torch.zeros(0, dtype=torch.uint8))


@sanitized
def test_counts_of_many_small_images_are_not_many():
    """A matrix for every task, not for every image: 720 MB of them."""
    x, y = logits(4000, 150, 1, 1), labels(4000, 2, 2)
    ops.upsample_confusion_matrix(x[:64], y[:64])  # threads and their memory
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs Linux")
    used = int(re.search(r"VmSize:\s+(\d+)", status.read_text())[1]) * 1024
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20, before[1]))
    try:
        counts = ops.upsample_confusion_matrix(x, y)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert counts[0, 0] == counts.sum() == 16000
