"""upsample_argmax against interpolate + argmax: every scale, both conventions, ties, NaN and masked classes."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from helpers import DEVICES, LAYOUTS, RESIZES, argmax_with_nan, assert_same_choice, strided

from segfast.ops import upsample_argmax, upsample_argmax_reference
from segfast.ops._checks import LABEL_DTYPES, LOGIT_DTYPES


@pytest.mark.parametrize("device", DEVICES)
def test_golden(
    device,
):  # samples 0 and 4 doubled: 0, 1, 3, 4; against a class that is 2 everywhere
    logits = torch.tensor([[[[0.0, 4.0]], [[2.0, 2.0]]]], device=device)
    assert upsample_argmax(logits, (1, 4)).tolist() == [[[1, 1, 0, 0]]]
    aligned = upsample_argmax(logits, (1, 5), align_corners=True)  # 0, 1, 2, 3, 4: a tie at 2
    assert aligned.tolist() == [[[1, 1, 0, 0, 0]]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", RESIZES, ids=str)
def test_matches_reference(device, sizes, align_corners):
    small, size = sizes
    logits = torch.randn(2, 7, *small, device=device) * 3
    actual = upsample_argmax(logits, size, align_corners=align_corners)
    assert actual.dtype == torch.int64
    assert actual.is_contiguous()
    assert_same_choice(actual, logits, size, align_corners=align_corners)
    eager = upsample_argmax_reference(logits, size, align_corners=align_corners)
    assert (actual != eager).sum() <= 1 + 1e-3 * eager.numel()  # eager rounds positions as well


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", LOGIT_DTYPES, ids=str)
@pytest.mark.parametrize("num_classes", [1, 2, 3, 5, 16, 19, 150, 1000])
def test_logit_types_and_class_counts(device, dtype, num_classes):
    if dtype == torch.float64 and device == "cuda":
        pytest.skip("float64 runs on the CPU only")
    logits = (torch.randn(1, num_classes, 5, 6, device=device) * 3).to(dtype)
    for size in [(20, 24), (5, 6), (11, 9)]:
        # Few mantissa bits make exact ties between blends, and float32 and float64 round them apart.
        assert_same_choice(upsample_argmax(logits, size), logits, size, most=2e-2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_output_types(device, dtype):
    logits = torch.randn(1, 256, 4, 5, device=device)
    for size in [(4, 5), (16, 20)]:
        actual = upsample_argmax(logits, size, dtype=dtype)
        assert actual.dtype == dtype
        assert actual.max() > 127
        assert torch.equal(actual.long(), upsample_argmax(logits, size))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(device, layout, dtype):
    logits = torch.randn(2, 5, 9, 35, device=device).to(dtype)
    view = strided(logits, layout)
    for size in [(18, 70), (36, 140), (9, 35), (4, 11)]:
        assert torch.equal(upsample_argmax(view, size), upsample_argmax(logits, size))
    assert torch.equal(
        upsample_argmax(logits[:1].expand(3, -1, -1, -1), (18, 70))[2],
        upsample_argmax(logits[:1], (18, 70))[0],
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("align_corners", [False, True])
def test_equal_sizes_are_argmax(device, align_corners):
    logits = torch.randn(2, 9, 13, 17, device=device).round()  # many ties
    logits[0, 3, 2, 2:5] = torch.inf
    logits[0, 5, 2, 3:7] = torch.inf
    logits[1, 2, 4, 4:9] = torch.nan
    logits[1, 7, 4, 6:12] = torch.nan
    logits[1, 0, 5] = -torch.inf
    logits[1, :, 6] = -torch.inf
    actual = upsample_argmax(logits, (13, 17), align_corners=align_corners)
    assert torch.equal(actual, logits.argmax(1))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sizes", RESIZES, ids=str)
def test_first_index_wins_a_tie(device, sizes):
    small, size = sizes
    logits = torch.randn(1, 19, *small, device=device)
    twins = torch.cat([logits, logits], 1)
    assert torch.equal(upsample_argmax(twins, size), upsample_argmax(logits, size))
    assert (upsample_argmax(torch.ones_like(logits), size) == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(8, 9), (16, 18), (24, 27), (32, 45), (5, 4)], ids=str)
def test_nan_is_the_largest_and_the_first_wins(device, size):
    logits = torch.randn(2, 19, 8, 9, device=device)
    logits[:, 3, 4, 5] = torch.nan
    logits[:, 1, 4, 6] = torch.nan
    logits[1, 18, 0, 0] = torch.nan
    actual = upsample_argmax(logits, size)
    assert torch.equal(actual, argmax_with_nan(logits, size))
    assert (actual == 1).any()
    assert (actual == 3).any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(8, 9), (16, 18), (24, 27), (15, 17), (4, 3)], ids=str)
def test_masked_classes_never_win(device, size, align_corners):
    # Eager's 0 * -inf is a NaN on the rim and on the samples, and argmax would choose it.
    logits = torch.randn(2, 19, 8, 9, device=device)
    logits[:, 2] = logits[:, 18] = -torch.inf
    logits[:, 4, :, :4] = -torch.inf
    actual = upsample_argmax(logits, size, align_corners=align_corners)
    finite = logits.double().clamp(min=-1e30)
    expected = torch.nn.functional.interpolate(
        finite, size, mode="bilinear", align_corners=align_corners
    ).argmax(1)
    assert (actual != expected).sum() <= 1
    assert not torch.isin(actual, torch.tensor([2, 18], device=device)).any()
    assert (upsample_argmax(torch.full_like(logits, -torch.inf), size) == 0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_huge_and_infinite_logits(device):
    logits = torch.randn(1, 5, 4, 4, device=device) * 1e38
    assert_same_choice(upsample_argmax(logits, (16, 16)), logits, (16, 16), most=0)
    logits[:, 3] = torch.inf
    assert (upsample_argmax(logits, (16, 16)) == 3).all()


@pytest.mark.parametrize("device", DEVICES)
def test_degenerate(device):
    logits = torch.randn(2, 3, 4, 5, device=device)
    assert upsample_argmax(logits[:0], (8, 8)).shape == (0, 8, 8)
    one = upsample_argmax(logits[:, :, :1, :1], (3, 7))
    assert torch.equal(one, logits[:, :, 0, 0].argmax(1)[:, None, None].expand(2, 3, 7))
    assert (upsample_argmax(logits[:, :1], (9, 9)) == 0).all()
    leaf = logits.clone().requires_grad_()
    assert not upsample_argmax(leaf, torch.Size((8, 10))).requires_grad
    assert torch.equal(upsample_argmax(leaf, [8, 10]), upsample_argmax(logits, (8, 10)))


@pytest.mark.parametrize("device", DEVICES)
def test_same_bits_every_run(device):
    logits = torch.randn(2, 19, 33, 41, device=device)
    threads = torch.get_num_threads()
    runs = []
    for count in (threads, 1, 2, 3):
        torch.set_num_threads(count)
        runs.append(upsample_argmax(logits, (132, 164)))
    torch.set_num_threads(threads)
    for run in runs[1:]:
        assert torch.equal(run, runs[0])
    # An image does not depend on its neighbours.
    assert torch.equal(upsample_argmax(logits[1:], (132, 164))[0], runs[0][1])


def test_memory_is_not_the_full_logits():
    logits = torch.randn(1, 200, 16, 16)
    with torch.profiler.profile(profile_memory=True) as profile:
        upsample_argmax(logits, (256, 256), dtype=torch.uint8)
    largest = max(abs(event.self_cpu_memory_usage) for event in profile.events())
    assert largest <= 2 * 256 * 256  # the prediction; the full logits would be 52 MB


def test_rejects():
    logits = torch.randn(2, 300, 4, 4)
    for error, text, call in [
        (TypeError, r"expected floating-point logits, got torch.int64 \(hint: logits.float\(\)\)",
         lambda: upsample_argmax(logits.long(), (8, 8))),
        (ValueError, r"expected logits \(N, C, h, w\), got \(300, 4, 4\)", lambda: upsample_argmax(logits[0], (8, 8))),
        (ValueError, r"h, w >= 1, got logits \(2, 300, 0, 4\)", lambda: upsample_argmax(logits[:, :, :0], (8, 8))),
        (ValueError, r"at least one class", lambda: upsample_argmax(logits[:, :0], (8, 8))),
        (ValueError, r"size \(H, W\) with H, W >= 1, got 8", lambda: upsample_argmax(logits, 8)),
        (ValueError, r"size \(H, W\) with H, W >= 1, got \(0, 8\)", lambda: upsample_argmax(logits, (0, 8))),
        (ValueError, r"size \(H, W\) .*got \(8, 8, 8\)", lambda: upsample_argmax(logits, (8, 8, 8))),
        (TypeError, r"expected dtype uint8, int16, int32 or int64, got torch.float32",
         lambda: upsample_argmax(logits, (8, 8), dtype=torch.float32)),
        (ValueError, r"torch.uint8 names 256 classes, got logits with 300 \(hint: dtype=torch.int32\)",
         lambda: upsample_argmax(logits, (8, 8), dtype=torch.uint8)),
    ]:  # fmt: skip
        with pytest.raises(error, match=text):
            call()


def test_the_operator_guards_itself():  # for callers of torch.ops, whom no Python check protects
    op = torch.ops.segfast.upsample_argmax
    for args in [
        (torch.randn(2, 300, 4, 4), [8, 8], False, 0),
        (torch.randn(2, 3, 4, 4), [8, 0], False, 4),
        (torch.randn(2, 3, 4, 4), [8], False, 4),
        (torch.randn(2, 3, 4, 4), [8, 8], False, 6),
        (torch.randn(2, 3, 0, 4), [8, 8], False, 4),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), [8, 8], False, 4),
    ]:
        with pytest.raises(RuntimeError, match="segfast::upsample_argmax: expected"):
            op(*args)


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    logits = torch.randn(2, 3, 4, 5, device=device)
    for args in [([8, 9], False, 4), ([4, 5], True, 0)]:
        torch.library.opcheck(torch.ops.segfast.upsample_argmax.default, (logits, *args))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(dynamic):
    compiled = torch.compile(upsample_argmax, fullgraph=True, dynamic=dynamic)
    for size in (4, 6):
        logits = torch.randn(2, 5, size, size)
        expected = upsample_argmax(logits, (size * 4, size * 3), dtype=torch.uint8)
        assert torch.equal(compiled(logits, (size * 4, size * 3), dtype=torch.uint8), expected)


class FourTimes(torch.nn.Module):
    def forward(self, logits):
        return upsample_argmax(logits, (4 * logits.shape[2], 4 * logits.shape[3]))


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_dynamic_sides(strict):
    """No check may bound a dynamic size; the operator checks it when it runs."""
    sides = {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    logits, other = torch.randn(2, 3, 4, 5), torch.randn(1, 3, 9, 2)
    program = torch.export.export(FourTimes(), (logits,), dynamic_shapes=(sides,), strict=strict)
    assert torch.equal(program.module()(other), FourTimes()(other))
    with pytest.raises((RuntimeError, ValueError), match=r"API call failed|at most 16777216"):
        program.module()(torch.zeros(1).expand(1, 3, 2**24 + 1, 1))


@pytest.mark.cuda
def test_float64_stays_on_the_cpu():
    with pytest.raises(TypeError, match="float64 runs on the CPU only"):
        upsample_argmax(torch.randn(1, 2, 3, 3, dtype=torch.float64, device="cuda"), (6, 6))


@pytest.mark.cuda
def test_no_sync_and_graph_capture():
    logits = torch.randn(2, 19, 32, 32, device="cuda")
    expected = upsample_argmax(logits, (128, 128))
    torch.cuda.set_sync_debug_mode("error")
    try:
        upsample_argmax(logits, (128, 128))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = upsample_argmax(logits, (128, 128))
    graph.replay()
    assert torch.equal(captured, expected)


@pytest.mark.cuda
@pytest.mark.parametrize("sizes", RESIZES, ids=str)
def test_cuda_agrees_with_cpu(sizes):
    small, size = sizes
    logits = torch.randn(2, 21, *small)
    cpu, cuda = upsample_argmax(logits, size), upsample_argmax(logits.cuda(), size).cpu()
    assert (cpu != cuda).sum() <= 1 + 1e-3 * cpu.numel()  # each is held to float64 above


def test_running_out_of_memory_says_so():
    logits = torch.zeros(1, 2, 2, 2)
    with pytest.raises(RuntimeError, match="memory") as refused:
        upsample_argmax(logits, (2**21, 2**21))  # 35 TB
    if hasattr(torch, "OutOfMemoryError") and "API call failed" not in str(refused.value):
        assert isinstance(refused.value, torch.OutOfMemoryError)
