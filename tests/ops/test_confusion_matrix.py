"""confusion_matrix against mask + bincount: exact, in place, with readable complaints."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from helpers import DEVICES, random_labels

from segfast.errors import LabelError
from segfast.ops import confusion_matrix, confusion_matrix_reference
from segfast.ops._checks import LABEL_DTYPES


@pytest.mark.parametrize("device", DEVICES)
def test_golden(device):  # rows are targets, columns predictions; the ignored pixel leaves both
    pred = torch.tensor([0, 1, 1, 2, 2], device=device)
    target = torch.tensor([0, 0, 1, 2, 255], device=device)
    assert confusion_matrix(pred, target, 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pred_dtype", LABEL_DTYPES, ids=str)
@pytest.mark.parametrize("target_dtype", LABEL_DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 300, 401), (7,), (1, 1, 1)])
def test_matches_reference(device, pred_dtype, target_dtype, shape):
    pred = torch.randint(0, 19, shape).to(pred_dtype).to(device)
    target = random_labels(shape, 19, dtype=target_dtype, device=device)
    assert torch.equal(
        confusion_matrix(pred, target, 19), confusion_matrix_reference(pred, target, 19)
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_classes", [7, 150, 250])
@pytest.mark.parametrize("ignore_index", [255, 3])  # a class may be the ignored one
def test_smooth_maps_that_start_anywhere(device, num_classes, ignore_index):
    pred, target = torch.randint(0, num_classes, (2, 9000), device=device).repeat_interleave(33, 1)
    for narrow, offset in ((torch.uint8, 1), (torch.int32, 3)):
        maps = pred[offset:].to(narrow)[2:], target[offset:].to(torch.uint8)[2:]
        actual = confusion_matrix(*maps, num_classes, ignore_index=ignore_index)
        expected = confusion_matrix_reference(*maps, num_classes, ignore_index=ignore_index)
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_classes", [1, 2, 150, 1000])
def test_class_counts(device, num_classes):
    pred = torch.randint(0, num_classes, (40, 50), dtype=torch.int32, device=device)
    target = random_labels((40, 50), num_classes, dtype=torch.int16, ignore_index=-1, device=device)
    actual = confusion_matrix(pred, target, num_classes, ignore_index=-1)
    assert torch.equal(
        actual, confusion_matrix_reference(pred, target, num_classes, ignore_index=-1)
    )


@pytest.mark.parametrize("device", DEVICES)
def test_out_accumulates(device):
    pred, target = (
        torch.randint(0, 5, (2, 9, 9), device=device),
        random_labels((2, 9, 9), 5, device=device),
    )
    out = torch.zeros(5, 5, dtype=torch.int64, device=device)
    assert confusion_matrix(pred, target, 5, out=out) is out
    confusion_matrix(pred, target, 5, out=out)
    assert torch.equal(out, 2 * confusion_matrix_reference(pred, target, 5))


@pytest.mark.parametrize("device", DEVICES)
def test_layouts_and_degenerate(device):
    pred, target = (
        torch.randint(0, 5, (6, 8), device=device),
        random_labels((6, 8), 5, device=device),
    )
    assert torch.equal(confusion_matrix(pred.t(), target.t(), 5), confusion_matrix(pred, target, 5))
    assert torch.equal(
        confusion_matrix(pred[:, ::2], target[:, ::2], 5),
        confusion_matrix_reference(pred[:, ::2], target[:, ::2], 5),
    )
    assert confusion_matrix(pred[:0], target[:0], 5).sum() == 0
    assert confusion_matrix(pred, torch.full_like(target, 255), 5).sum() == 0
    assert confusion_matrix(
        torch.tensor(1, device=device), torch.tensor(0, device=device), 2
    ).tolist() == [[0, 1], [0, 0]]


def test_counts_beyond_float32():  # 2^24 + 1 is not a float32: a float histogram would saturate
    pixels = 2**24 + 1
    zeros = torch.zeros(pixels, dtype=torch.uint8)
    assert confusion_matrix(zeros, zeros, 2)[0, 0] == pixels


def test_rejects():
    m = torch.zeros(3, 4, dtype=torch.long)
    for error, text, call in [
        (
            TypeError,
            "pred uint8, int16, int32 or int64, got torch.float32.*argmax first",
            lambda: confusion_matrix(m.float(), m, 2),
        ),
        (
            ValueError,
            r"one shape, got \(3, 4\) and \(3,\)",
            lambda: confusion_matrix(m, m[:, 0], 2),
        ),
        (ValueError, "num_classes >= 1, got 0", lambda: confusion_matrix(m, m, 0)),
        (
            ValueError,
            r"expected out \(2, 2\)",
            lambda: confusion_matrix(m, m, 2, out=torch.zeros(3, 3, dtype=torch.long)),
        ),
        (
            ValueError,
            r"expected out \(2, 2\)",
            lambda: confusion_matrix(m, m, 2, out=torch.zeros(2, 2)),
        ),
    ]:
        with pytest.raises(error, match=text):
            call()


def test_bad_labels_leave_out_unchanged():
    pred, target, out = (
        torch.zeros(2, 3, 4, dtype=torch.long),
        torch.zeros(2, 3, 4, dtype=torch.long),
        torch.ones(2, 2, dtype=torch.int64),
    )
    target[1, 2, 3] = 200
    with pytest.raises(
        LabelError, match=r"1 label\(s\) lie outside \[0, 2\).*first is 200 at \(n=1, y=2, x=3\)"
    ):
        confusion_matrix(pred, target, 2, out=out)
    pred[0, 1, 1] = 7
    with pytest.raises(
        LabelError, match=r"1 prediction\(s\) lie outside \[0, 2\); the first is 7 .*num_classes"
    ):
        confusion_matrix(pred, target.clamp(max=1), 2, out=out)
    assert out.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    counts = torch.zeros(3, 3, dtype=torch.int64, device=device)
    labels = torch.randint(0, 3, (4, 5), device=device)
    torch.library.opcheck(
        torch.ops.segfast.confusion_matrix_.default, (counts, labels, labels, 255)
    )


def test_compile():
    labels = torch.randint(0, 3, (4, 5))
    assert torch.equal(
        torch.compile(confusion_matrix, fullgraph=True)(labels, labels, 3),
        confusion_matrix(labels, labels, 3),
    )
