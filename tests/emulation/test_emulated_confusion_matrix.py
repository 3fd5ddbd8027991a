"""The CUDA kernels of confusion_matrix, thread for thread on the CPU, against a bincount."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from emulated import labels

from segfast.ops import confusion_matrix_reference
from segfast.ops._checks import LABEL_DTYPES

pytestmark = pytest.mark.slow


def assert_same(emulated, pred, target, num_classes, ignore_index):
    """Added to what is there; no bad labels."""
    actual = torch.arange(num_classes**2).view(num_classes, num_classes)
    expected = actual + confusion_matrix_reference(
        pred, target, num_classes, ignore_index=ignore_index
    )
    emulated.confusion_matrix_(actual, pred, target, ignore_index)
    assert torch.equal(actual, expected)
    assert emulated.take_label_faults(pred).tolist()[0] == 0


def void(dtype):
    """The ignored label of `labels`."""
    return 255 if dtype == torch.uint8 else -1


def smooth(pixels, num_classes, dtype, side=48, ignored=False):
    """Stretches of one label, a seventh of them ignored on demand."""
    stretches = torch.randint(num_classes, (-(-pixels // side),))
    if ignored:
        stretches[::7] = void(dtype)
    return stretches.repeat_interleave(side)[:pixels].to(dtype)


@pytest.mark.parametrize("pred_dtype", LABEL_DTYPES, ids=str)
@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_dtypes(emulated, dtype, pred_dtype):
    noise = torch.randint(0, 19, (3, 50, 61)).to(pred_dtype), labels((3, 50, 61), 19, dtype)
    stretches = smooth(9000, 19, pred_dtype, side=31), smooth(9000, 19, dtype, ignored=True)
    for pred, target in (noise, stretches):
        assert_same(emulated, pred, target, 19, void(dtype))


@pytest.mark.parametrize("num_classes", [1, 2, 19, 150, 200])  # 200 leave no room in shared memory
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64], ids=str)
def test_class_counts(emulated, num_classes, dtype):
    pred = torch.randint(0, num_classes, (2, 70, 81)).to(dtype)
    assert_same(emulated, pred, labels((2, 70, 81), num_classes, dtype), num_classes, void(dtype))
    pred = smooth(20000, num_classes, dtype)
    target = smooth(20000, num_classes, dtype, side=1000, ignored=True)
    assert_same(emulated, pred, target, num_classes, void(dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64], ids=str)
@pytest.mark.parametrize("pixels", [1, 31, 64, 127, 128, 1023, 1024, 1025, 5000])
def test_sizes_and_addresses(emulated, pixels, dtype):
    """Maps of any length that start anywhere."""
    pred, target = torch.randint(0, 5, (2, pixels + 8)).to(dtype)
    for offset, other in ((0, 0), (1, 0), (0, 3), (2, 7), (8, 4)):
        maps = pred[offset : offset + pixels], target[other : other + pixels]
        assert_same(emulated, *maps, 5, void(dtype))


def test_more_pixels_than_threads(emulated):
    """A lane takes several groups."""
    pixels = 4 * 20 * 1024 * 2 + 5000  # of blocks, warps, pixels of a warp
    pred, target = smooth(pixels, 7, torch.uint8), labels((pixels,), 7)
    assert_same(emulated, pred, target, 7, 255)
    assert_same(emulated, pred[1:], target[:-1], 7, 255)


def test_one_pair_everywhere(emulated):
    """All lanes of a warp add once."""
    ones = torch.ones(40000, dtype=torch.uint8)
    assert_same(emulated, ones, ones, 3, 255)
    assert_same(emulated, ones.long(), ones, 200, 255)


@pytest.mark.parametrize("ignore_index", [0, 3, -100, 2**40])
@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_ignore_index(emulated, dtype, ignore_index):
    """A class may be the ignored one; and no narrow label is an ignore_index beyond its type."""
    pred, target = torch.randint(0, 5, (2, 3000)).to(dtype)
    if ignore_index == 2**40 and dtype == torch.int64:
        target[::5] = ignore_index
    assert_same(emulated, pred, target, 5, ignore_index)
    assert_same(emulated, smooth(3000, 5, dtype), smooth(3000, 5, dtype), 5, ignore_index)


@pytest.mark.parametrize("num_classes", [5, 200])
@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_bad_labels_are_tallied(emulated, dtype, num_classes):
    bad = 250 if dtype == torch.uint8 else -7
    pred, target = torch.ones(2, 6000, dtype=torch.int64).to(dtype)
    target[500:600] = bad  # whole groups, and parts of some
    target[5999] = bad
    pred[1003] = pred[500] = bad  # counted once, and as the target where both are bad
    target[2000], pred[2000] = void(dtype), bad  # ignored
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    emulated.confusion_matrix_(counts, pred, target, void(dtype))
    assert counts[1, 1] == counts.sum() == 6000 - 100 - 1 - 1 - 1
    count, first = emulated.take_label_faults(pred).tolist()
    assert count == 102
    assert first >> 30 == 500
    assert (first >> 14 & 0xFFFF) - 2**15 == bad


def test_a_bad_prediction_is_named(emulated):
    pred, target = torch.ones(2, 2000, dtype=torch.int16)
    pred[1003] = 77
    emulated.confusion_matrix_(torch.zeros(5, 5, dtype=torch.int64), pred, target, 255)
    count, first = emulated.take_label_faults(pred).tolist()
    assert (count, first >> 30, (first >> 14 & 0xFFFF) - 2**15) == (1, 1003, 77)
