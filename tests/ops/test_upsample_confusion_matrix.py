"""upsample_confusion_matrix: exactly the counts of its own decisions, whatever the scale, type and layout."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from helpers import DEVICES, LAYOUTS, RESIZES, random_labels, strided

from segfast.errors import LabelError
from segfast.ops import (
    check_labels,
    confusion_matrix_reference,
    upsample_argmax,
    upsample_confusion_matrix,
    upsample_confusion_matrix_reference,
)
from segfast.ops._checks import LABEL_DTYPES, LOGIT_DTYPES


def assert_counts(logits, target, *, ignore_index=255, align_corners=False):
    """The counts are those of upsample_argmax, which has tests of its own against float64."""
    actual = upsample_confusion_matrix(
        logits, target, ignore_index=ignore_index, align_corners=align_corners
    )
    pred = upsample_argmax(logits, target.shape[1:], align_corners=align_corners)
    expected = confusion_matrix_reference(pred, target, logits.shape[1], ignore_index=ignore_index)
    assert actual.dtype == torch.int64
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_golden(device):  # predictions 1, 1, 0, 0; the ignored pixel leaves both sides
    logits = torch.tensor([[[[0.0, 4.0]], [[2.0, 2.0]]]], device=device)
    target = torch.tensor([[[1, 0, 0, 255]]], dtype=torch.uint8, device=device)
    assert upsample_confusion_matrix(logits, target).tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", RESIZES, ids=str)
def test_matches_reference(device, sizes, align_corners):
    small, size = sizes
    logits = torch.randn(2, 7, *small, device=device) * 3
    target = random_labels((2, *size), 7, device=device)
    assert_counts(logits, target, align_corners=align_corners)
    actual, eager = (
        f(logits, target, align_corners=align_corners)
        for f in (upsample_confusion_matrix, upsample_confusion_matrix_reference)
    )
    assert torch.equal(actual.sum(1), eager.sum(1))  # targets are no matter of rounding
    moved = (actual - eager).abs().sum() // 2  # pixels in which two classes are within rounding
    assert moved <= 1 + 1e-3 * target.numel()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("logit_dtype", LOGIT_DTYPES, ids=str)
@pytest.mark.parametrize("target_dtype", LABEL_DTYPES, ids=str)
def test_types(device, logit_dtype, target_dtype):
    if logit_dtype == torch.float64 and device == "cuda":
        pytest.skip("float64 runs on the CPU only")
    logits = (torch.randn(2, 19, 9, 11, device=device) * 3).to(logit_dtype)
    for size in [(36, 44), (9, 11)]:
        assert_counts(logits, random_labels((2, *size), 19, dtype=target_dtype, device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_classes", [1, 2, 110, 111, 150, 300])
def test_class_counts(device, num_classes):
    logits = torch.randn(2, num_classes, 7, 8, device=device)
    target = random_labels(
        (2, 28, 32), num_classes, dtype=torch.int16, ignore_index=-1, device=device
    )
    assert_counts(logits, target, ignore_index=-1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(device, layout):
    logits = torch.randn(2, 5, 9, 35, device=device)
    target = random_labels((2, 18, 70), 5, device=device)
    view, map_view = strided(logits, layout), strided(target.unsqueeze(1), layout).squeeze(1)
    expected = upsample_confusion_matrix(logits, target)
    assert torch.equal(upsample_confusion_matrix(view, map_view), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(8, 9), (16, 18), (5, 4)], ids=str)
def test_ties_nan_and_masked_classes(device, size):
    logits = torch.randn(2, 6, 8, 9, device=device)
    target = random_labels((2, *size), 6, device=device)
    assert_counts(logits.round(), target)
    masked = logits.clone()
    masked[:, 2] = -torch.inf
    assert upsample_confusion_matrix(masked, target)[:, 2].sum() == 0
    masked[0, 3, 2, 2] = torch.nan
    assert_counts(masked, target)
    everything = torch.full_like(logits, torch.nan)
    assert upsample_confusion_matrix(everything, target)[:, 1:].sum() == 0


@pytest.mark.parametrize("device", DEVICES)
def test_out_accumulates(device):
    logits = torch.randn(2, 5, 6, 7, device=device)
    target = random_labels((2, 24, 28), 5, device=device)
    once = upsample_confusion_matrix(logits, target)
    out = torch.zeros(5, 5, dtype=torch.int64, device=device)
    assert upsample_confusion_matrix(logits, target, out=out) is out
    upsample_confusion_matrix(logits, target, out=out)
    assert torch.equal(out, 2 * once)
    out.fill_(2**40)  # beyond 32 bits
    upsample_confusion_matrix(logits, target, out=out)
    assert torch.equal(out, once + 2**40)


@pytest.mark.parametrize("device", DEVICES)
def test_degenerate(device):
    logits = torch.randn(2, 3, 4, 5, device=device)
    target = random_labels((2, 8, 9), 3, device=device)
    assert upsample_confusion_matrix(logits[:0], target[:0]).sum() == 0
    assert upsample_confusion_matrix(logits, target[:, :0]).sum() == 0
    assert upsample_confusion_matrix(logits, torch.full_like(target, 255)).sum() == 0
    one = upsample_confusion_matrix(logits[:, :1], torch.zeros_like(target))
    assert one.tolist() == [[target.numel()]]
    leaf = logits.clone().requires_grad_()
    counts = upsample_confusion_matrix(leaf, target)
    assert not counts.requires_grad
    assert torch.equal(counts, upsample_confusion_matrix(logits, target))
    target = target.clamp(max=2)  # an ignored class is ignored, as in confusion_matrix
    assert_counts(logits, target, ignore_index=0)
    assert upsample_confusion_matrix(logits, target, ignore_index=0)[0].sum() == 0


@pytest.mark.parametrize("device", DEVICES)
def test_same_counts_every_run(device):
    logits = torch.randn(2, 19, 33, 41, device=device)
    target = random_labels((2, 132, 164), 19, device=device)
    threads = torch.get_num_threads()
    runs = []
    for count in (threads, 1, 2, 3):
        torch.set_num_threads(count)
        runs.append(upsample_confusion_matrix(logits, target))
    torch.set_num_threads(threads)
    for run in runs[1:]:
        assert torch.equal(run, runs[0])


def test_memory_is_neither_logits_nor_prediction():
    logits, target = torch.randn(1, 60, 16, 16), random_labels((1, 512, 512), 60)
    with torch.profiler.profile(profile_memory=True) as profile:
        upsample_confusion_matrix(logits, target)
    largest = max(abs(event.self_cpu_memory_usage) for event in profile.events())
    assert largest < 512 * 512  # not even a byte per pixel


def test_rejects():
    logits, target = torch.randn(2, 3, 4, 4), torch.zeros(2, 8, 8, dtype=torch.long)
    for error, text, call in [
        (ValueError, r"expected logits \(N, C, h, w\) and target \(N, H, W\), got \(2, 3, 4, 4\) and \(2, 1, 8, 8\) "
                     r"\(hint: target.squeeze\(1\)\)", lambda: upsample_confusion_matrix(logits, target[:, None])),
        (ValueError, r"got \(2, 3, 4, 4\) and \(1, 8, 8\)", lambda: upsample_confusion_matrix(logits, target[:1])),
        (TypeError, r"expected target uint8, .*not probabilities", lambda: upsample_confusion_matrix(logits, target.float())),
        (TypeError, r"expected floating-point logits", lambda: upsample_confusion_matrix(logits.long(), target)),
        (ValueError, r"h, w >= 1", lambda: upsample_confusion_matrix(logits[:, :, :0], target)),
        (ValueError, r"expected out \(3, 3\) contiguous int64 on cpu, got \(2, 2\) torch.int64",
         lambda: upsample_confusion_matrix(logits, target, out=torch.zeros(2, 2, dtype=torch.long))),
        (ValueError, r"expected out \(3, 3\)", lambda: upsample_confusion_matrix(logits, target, out=torch.zeros(3, 3))),
        (ValueError, r"expected out \(3, 3\)",
         lambda: upsample_confusion_matrix(logits, target, out=torch.zeros(3, 6, dtype=torch.long)[:, ::2])),
    ]:  # fmt: skip
        with pytest.raises(error, match=text):
            call()


def test_the_operator_guards_itself():  # for callers of torch.ops, whom no Python check protects
    counts = torch.zeros(3, 3, dtype=torch.int64)
    logits, target = torch.randn(2, 3, 4, 4), torch.zeros(2, 8, 8, dtype=torch.long)
    for args in [
        (counts[:2, :2].contiguous(), logits, target),
        (counts.float(), logits, target),
        (counts, logits[0], target),
        (counts, logits, target[:1]),
        (counts, logits, target.float()),
        (counts, logits.long(), target),
    ]:
        with pytest.raises(RuntimeError, match="segfast::upsample_confusion_matrix: expected"):
            torch.ops.segfast.upsample_confusion_matrix_(*args, 255, False)


def test_bad_labels_leave_out_unchanged():
    logits, out = torch.randn(2, 3, 4, 4), torch.ones(3, 3, dtype=torch.int64)
    for size in [(8, 8), (4, 4), (40, 300)]:
        target = torch.zeros(2, *size, dtype=torch.long)
        target[1, 2, 3], target[1, 3, 1], target[0, 0, 0] = 200, -1, 255
        with pytest.raises(
            LabelError,
            match=r"upsample_confusion_matrix: 2 label\(s\) lie outside \[0, 3\).*first is 200 at \(n=1, y=2, x=3\)",
        ):
            upsample_confusion_matrix(logits, target, out=out)
        assert out.tolist() == [[1, 1, 1]] * 3


@pytest.mark.cuda
def test_bad_labels_are_tallied():
    logits = torch.randn(2, 3, 4, 4, device="cuda")
    target = random_labels((2, 8, 8), 3, device="cuda")
    target[1, 2, 3] = target[1, 3, 1] = 255
    clean = upsample_confusion_matrix(logits, target)
    check_labels()
    target[1, 2, 3] = target[1, 3, 1] = 200
    assert torch.equal(upsample_confusion_matrix(logits, target), clean)
    with pytest.raises(LabelError, match=r"2 label\(s\) .*first is 200 at pixel 83"):
        check_labels()


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    counts = torch.zeros(3, 3, dtype=torch.int64, device=device)
    logits = torch.randn(2, 3, 4, 5, device=device)
    target = random_labels((2, 8, 9), 3, device=device)
    torch.library.opcheck(
        torch.ops.segfast.upsample_confusion_matrix_.default, (counts, logits, target, 255, False)
    )


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(dynamic):
    compiled = torch.compile(upsample_confusion_matrix, fullgraph=True, dynamic=dynamic)
    for size in (4, 6):
        logits, target = torch.randn(2, 5, size, size), random_labels((2, size * 4, size * 4), 5)
        assert torch.equal(compiled(logits, target), upsample_confusion_matrix(logits, target))


@pytest.mark.cuda
def test_no_sync_and_graph_capture():
    logits = torch.randn(2, 19, 32, 32, device="cuda")
    target = random_labels((2, 128, 128), 19, device="cuda")
    expected = upsample_confusion_matrix(logits, target)
    out = torch.zeros_like(expected)
    torch.cuda.set_sync_debug_mode("error")
    try:
        upsample_confusion_matrix(logits, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        upsample_confusion_matrix(logits, target, out=out)
    graph.replay()
    assert torch.equal(out, expected)
