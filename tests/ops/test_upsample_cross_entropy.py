"""upsample_cross_entropy against interpolate + cross_entropy: every scale, both conventions, values and gradients."""

# SPDX-License-Identifier: Apache-2.0

import itertools

import pytest
import torch
from helpers import DEVICES, LAYOUTS, assert_within_budget, random_labels, strided

from segfast.errors import LabelError
from segfast.ops import (
    upsample_cross_entropy,
    upsample_cross_entropy_reference,
    upsample_cross_entropy_terms,
)

# (h, w) -> (H, W): integer scales, odd ones, up in one direction and down in the other, single rows, columns and pixels
SIZES = [
    ((8, 9), (16, 18)),
    ((8, 9), (32, 36)),
    ((5, 7), (40, 56)),
    ((6, 5), (18, 15)),
    ((9, 11), (9, 11)),
    ((9, 11), (20, 31)),
    ((13, 10), (37, 43)),
    ((17, 19), (5, 6)),
    ((16, 8), (8, 24)),
    ((1, 1), (7, 9)),
    ((1, 6), (9, 13)),
    ((6, 1), (9, 13)),
    ((7, 7), (1, 1)),
    ((40, 300), (41, 303)),
    ((2, 2), (100, 3)),
    # wider than a vector: the phases 2, 3, 4, 8, 16 of a CPU row, with a full and a partial vector; align_corners' x8
    *(((3, 35), (3 * s, 35 * s)) for s in (2, 3, 4, 8, 16)),
    ((3, 33), (17, 257)),
]
# How much more than eager a gradient may err, of the largest one. On CUDA the log-sum-exp is saved as one rounded number.
GRADIENT_SLACK = {"cpu": 3e-7, "cuda": 8e-7}
OPTIONS = [
    {"weighted": weighted, "pixel": pixel, "label_smoothing": smoothing, "reduction": reduction}
    for weighted, pixel, smoothing, reduction in itertools.product(
        (False, True), (False, True), (0.0, 0.1), ("mean", "sum", "none")
    )
]


def loss_and_grad(function, logits, target, **options):
    logits = logits.detach().requires_grad_()
    loss = function(logits, target, **options)
    upstream = torch.linspace(
        0.5, 1.5, max(loss.numel(), 1), device=logits.device, dtype=torch.float64
    )
    grad = torch.autograd.grad(
        loss, logits, upstream[: loss.numel()].view(loss.shape).to(loss.dtype)
    )[0]
    return loss.detach(), grad


def in_float64(options):
    return {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in options.items()}


@pytest.mark.parametrize("device", DEVICES)
def test_golden(device):
    # One row, samples 0 and 4 of class 0, zeros for class 1; doubled: 0, 1, 3, 4. Label 1: loss is ln(1 + e^z).
    logits = torch.tensor([[[[0.0, 4.0]], [[0.0, 0.0]]]], device=device, requires_grad=True)
    target = torch.ones(1, 1, 4, dtype=torch.uint8, device=device)
    loss = upsample_cross_entropy(logits, target, reduction="none")
    z = torch.tensor([0.0, 1.0, 3.0, 4.0])
    torch.testing.assert_close(loss.detach().cpu(), torch.log1p(z.exp()).view(1, 1, 4))
    loss.sum().backward()
    p = (
        z.sigmoid()
    )  # d loss / d z; the samples weigh the pixels (1, 3/4, 1/4, 0) and (0, 1/4, 3/4, 1)
    expected = torch.stack(
        [p @ torch.tensor([1, 0.75, 0.25, 0]), p @ torch.tensor([0, 0.25, 0.75, 1])]
    )
    torch.testing.assert_close(logits.grad[0, :, 0].cpu(), torch.stack([expected, -expected]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_matches_reference(device, sizes, align_corners):
    (h, w), (H, W) = sizes
    logits = torch.randn(2, 7, h, w, device=device) * 3
    target = random_labels((2, H, W), 7, device=device)
    target[0, 0, 0] = 1
    options = {"ignore_index": 255, "align_corners": align_corners}
    actual = loss_and_grad(upsample_cross_entropy, logits, target, **options)
    eager = loss_and_grad(upsample_cross_entropy_reference, logits, target, **options)
    truth = loss_and_grad(upsample_cross_entropy_reference, logits.double(), target, **options)
    assert_within_budget(actual[0], eager[0], truth[0], slack=2e-7 * max(1.0, truth[0].item()))
    assert_within_budget(
        actual[1], eager[1], truth[1], slack=GRADIENT_SLACK[device] * truth[1].abs().max().item()
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_options(device, options):
    options = dict(options)
    logits = torch.randn(2, 19, 9, 10, device=device) * 3
    target = random_labels((2, 27, 40), 19, device=device)
    weight = torch.rand(19, device=device) + 0.1 if options.pop("weighted") else None
    pixel_weight = torch.rand(target.shape, device=device) if options.pop("pixel") else None
    options |= {"weight": weight, "pixel_weight": pixel_weight, "ignore_index": 255}
    actual = loss_and_grad(upsample_cross_entropy, logits, target, **options)
    eager = loss_and_grad(upsample_cross_entropy_reference, logits, target, **options)
    truth = loss_and_grad(
        upsample_cross_entropy_reference, logits.double(), target, **in_float64(options)
    )
    assert_within_budget(
        actual[0], eager[0], truth[0], slack=2e-7 * max(1.0, truth[0].abs().max().item())
    )
    assert_within_budget(
        actual[1], eager[1], truth[1], slack=GRADIENT_SLACK[device] * truth[1].abs().max().item()
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_classes", [1, 2, 11, 16, 150, 1000])
def test_error_budget(device, dtype, num_classes):
    logits = (torch.randn(1, num_classes, 5, 6, device=device) * 3).to(dtype)
    target = random_labels(
        (1, 20, 24), num_classes, dtype=torch.int16, ignore_index=-1, device=device
    )
    options = {"ignore_index": -1}
    actual = loss_and_grad(upsample_cross_entropy, logits, target, **options)
    eager = loss_and_grad(upsample_cross_entropy_reference, logits, target, **options)
    truth = loss_and_grad(upsample_cross_entropy_reference, logits.double(), target, **options)
    assert actual[0].dtype == dtype
    assert_within_budget(actual[0], eager[0], truth[0], slack=3e-7 * max(1.0, truth[0].item()))
    factor = 1 / (target != -1).sum().item()  # of every pixel: a single class has gradient 0
    largest = max(truth[1].abs().max().item(), factor)
    assert_within_budget(actual[1], eager[1], truth[1], slack=GRADIENT_SLACK[device] * largest)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (3, 2)])
def test_gradcheck(align_corners, size):
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    target = random_labels((2, *size), 3)
    options = {
        "weight": torch.rand(3, dtype=torch.float64),
        "pixel_weight": torch.rand(2, *size, dtype=torch.float64),
    }
    torch.autograd.gradcheck(
        lambda x: upsample_cross_entropy(
            x, target, ignore_index=255, label_smoothing=0.1, align_corners=align_corners, **options
        ),
        logits,
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(device, layout):
    logits = torch.randn(2, 5, 9, 35, device=device)
    target = random_labels((2, 18, 70), 5, device=device)
    view, map_view = strided(logits, layout), strided(target.unsqueeze(1), layout).squeeze(1)
    options = {"ignore_index": 255, "reduction": "none"}
    expected = loss_and_grad(upsample_cross_entropy, logits, target, **options)
    actual = loss_and_grad(upsample_cross_entropy, view, map_view, **options)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])
    assert actual[1].stride() == torch.empty_like(view).stride()


@pytest.mark.parametrize("device", DEVICES)
def test_accuracy(device):
    for size in [(7, 9), (21, 27)]:
        logits = torch.randn(2, 6, 7, 9, device=device)
        if size == (7, 9):
            logits = (
                logits.round()
            )  # makes ties: the first index wins; blends would tie up to rounding only
        label = random_labels((2, *size), 6, device=device)
        loss, correct, valid = upsample_cross_entropy(
            logits, label, ignore_index=255, return_accuracy=True
        )
        expected = upsample_cross_entropy_reference(
            logits, label, ignore_index=255, return_accuracy=True
        )
        torch.testing.assert_close(loss, expected[0])
        assert valid == expected[2]
        assert correct == expected[1]
        assert correct.dtype == valid.dtype == torch.int64


def test_no_forward_derivative():
    logits, target = torch.randn(2, 3, 4, 5), torch.zeros(2, 8, 10, dtype=torch.long)
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(lambda x: upsample_cross_entropy(x, target), (logits,), (logits,))


@pytest.mark.parametrize("device", DEVICES)
def test_degenerate(device):
    logits = torch.randn(2, 3, 4, 4, device=device, requires_grad=True)
    ignored = torch.full((2, 8, 8), 255, dtype=torch.uint8, device=device)
    mean = upsample_cross_entropy(logits, ignored, ignore_index=255)
    assert torch.isnan(mean)
    mean.backward()
    assert (logits.grad == 0).all()
    assert upsample_cross_entropy(logits[:0], ignored[:0], reduction="sum") == 0
    empty_target = upsample_cross_entropy(logits, ignored[:, :0], reduction="sum")
    assert empty_target == 0
    empty_target.backward()
    masked = logits.detach().clone()
    masked[:, 0] = -torch.inf  # a class nobody may predict
    target = random_labels((2, 8, 8), 3, device=device).clamp(min=1)
    actual, expected = (
        f(masked, target, ignore_index=255)
        for f in (upsample_cross_entropy, upsample_cross_entropy_reference)
    )
    torch.testing.assert_close(actual, expected, equal_nan=True)
    assert torch.isnan(
        upsample_cross_entropy(logits.detach() * torch.nan, target, ignore_index=255)
    )


@pytest.mark.parametrize("device", DEVICES)
def test_same_bits_every_run(device):
    logits = torch.randn(2, 19, 33, 41, device=device)
    target = random_labels((2, 132, 164), 19, device=device)
    threads = torch.get_num_threads()
    runs = []
    for count in (threads, threads, 1, 2):
        torch.set_num_threads(count)
        runs.append(loss_and_grad(upsample_cross_entropy, logits, target, ignore_index=255))
    torch.set_num_threads(threads)
    for loss, grad in runs[1:]:
        assert torch.equal(loss, runs[0][0])
        assert torch.equal(grad, runs[0][1])
    batch = loss_and_grad(
        upsample_cross_entropy, logits[1:], target[1:], ignore_index=255, reduction="none"
    )
    whole = loss_and_grad(
        upsample_cross_entropy, logits, target, ignore_index=255, reduction="none"
    )
    assert torch.equal(batch[0][0], whole[0][1])  # an image does not depend on its neighbours


def test_terms_take_the_plain_kernel_for_equal_sizes():
    logits, target = torch.randn(2, 5, 6, 7), random_labels((2, 6, 7), 5)
    fused = upsample_cross_entropy(logits, target, ignore_index=255, reduction="sum")
    terms = upsample_cross_entropy_terms(logits, target, ignore_index=255)
    torch.testing.assert_close(terms.loss_sum, fused)
    assert terms.num_correct is None


def test_memory_is_not_the_full_logits():
    logits = torch.randn(1, 200, 16, 16, requires_grad=True)
    target = random_labels((1, 256, 256), 200)
    with torch.profiler.profile(profile_memory=True) as profile:
        upsample_cross_entropy(logits, target, ignore_index=255).backward()
    largest = max(abs(event.self_cpu_memory_usage) for event in profile.events())
    assert (
        largest <= 2 * 256 * 256 * 4 + 1024
    )  # the saved statistics; the full logits would be 52 MB


def test_rejects():
    logits, target = torch.randn(2, 3, 4, 4), torch.zeros(2, 8, 8, dtype=torch.long)
    for error, text, call in [
        (ValueError, r"expected logits \(N, C, h, w\) and target \(N, H, W\), got \(2, 3, 4, 4\) and \(2, 1, 8, 8\)",
         lambda: upsample_cross_entropy(logits, target[:, None])),
        (ValueError, r"got \(2, 3, 4, 4\) and \(1, 8, 8\)", lambda: upsample_cross_entropy(logits, target[:1])),
        (TypeError, r"expected target uint8", lambda: upsample_cross_entropy(logits, target.float())),
        (ValueError, r"h, w >= 1", lambda: upsample_cross_entropy(logits[:, :, :0], target)),
    ]:  # fmt: skip
        with pytest.raises(error, match=text):
            call()
    with pytest.raises(
        LabelError, match=r"128 label\(s\) lie outside \[0, 3\).*first is 9 at \(n=0, y=0, x=0\)"
    ):
        upsample_cross_entropy(logits, target + 9)


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    logits = torch.randn(2, 3, 4, 5, device=device, requires_grad=True)
    target = random_labels((2, 8, 9), 3, device=device)
    weight = torch.rand(3, device=device)
    for args in [
        (None, None, 255, 1, 0.0, False, False),
        (weight, torch.rand(2, 8, 9, device=device), 255, 0, 0.1, True, True),
    ]:
        torch.library.opcheck(
            torch.ops.segfast.upsample_cross_entropy.default, (logits, target, *args)
        )


def test_opcheck_with_gradient():
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    target = random_labels((2, 8, 9), 3)
    ops = torch.ops.segfast
    for args in [
        (None, None, 255, 1, 0.0, False, False),
        (torch.rand(3), torch.rand(2, 8, 9), 255, 2, 0.1, True, True),
    ]:
        torch.library.opcheck(
            ops.upsample_cross_entropy_with_gradient.default, (logits, target, *args)
        )
    channels_last = logits.detach().to(memory_format=torch.channels_last)
    gradient, one = torch.randn(2, 3, 4, 5), torch.tensor(1.0)
    torch.library.opcheck(ops.scale_gradient.default, (one, channels_last, gradient, one * 3, 1))


@pytest.mark.parametrize("options", OPTIONS[::3], ids=str)  # reduction "mean"
@pytest.mark.parametrize("sizes", [((8, 9), (32, 36)), ((13, 10), (37, 43)), ((3, 35), (9, 105))])
def test_one_walk_agrees_with_two(sizes, options):
    """In a training step on the CPU the gradient comes with the loss; else forward and backward are apart."""
    (h, w), (H, W) = sizes
    logits, target = torch.randn(2, 11, h, w) * 3, random_labels((2, H, W), 11)
    weight = torch.rand(11) + 0.5 if options["weighted"] else None
    pixel = torch.rand(2, H, W) if options["pixel"] else None
    args = (logits, target, weight, pixel, 255, 1, options["label_smoothing"], True, False)
    ops, upstream = torch.ops.segfast, torch.tensor(0.7)
    loss, stats, weight_sum, tally = ops.upsample_cross_entropy(*args)
    grad = ops.upsample_cross_entropy_backward(
        upstream, *args[:4], stats, weight_sum, *args[4:7], args[8]
    )
    with_gradient = ops.upsample_cross_entropy_with_gradient(*args)
    torch.testing.assert_close(with_gradient[0], loss, rtol=3e-7, atol=0)
    assert torch.equal(with_gradient[2], weight_sum)
    assert torch.equal(with_gradient[3], tally)
    scaled = ops.scale_gradient(upstream, logits, with_gradient[1], weight_sum, 1)
    torch.testing.assert_close(scaled, grad, rtol=1e-5, atol=1e-6 * grad.abs().max().item())


def test_backward_twice_and_second_derivative():
    logits, target = torch.randn(2, 5, 4, 4, requires_grad=True), random_labels((2, 16, 16), 5)
    loss = upsample_cross_entropy(logits, target, ignore_index=255)
    first = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    kept = first.clone()
    first.zero_()  # the caller's to change
    assert torch.equal(torch.autograd.grad(loss, logits, retain_graph=True)[0], kept)
    grad = torch.autograd.grad(loss, logits, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(dynamic):
    compiled = torch.compile(upsample_cross_entropy, fullgraph=True, dynamic=dynamic)
    for size in (4, 6):
        logits, target = torch.randn(2, 5, size, size), random_labels((2, size * 4, size * 4), 5)
        expected = loss_and_grad(upsample_cross_entropy, logits, target, ignore_index=255)
        torch.testing.assert_close(
            loss_and_grad(compiled, logits, target, ignore_index=255), expected
        )


@pytest.mark.cuda
def test_no_sync_and_graph_capture():
    logits = torch.randn(2, 19, 32, 32, device="cuda", requires_grad=True)
    target = random_labels((2, 128, 128), 19, device="cuda")
    expected = loss_and_grad(upsample_cross_entropy, logits, target, ignore_index=255)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss_and_grad(upsample_cross_entropy, logits, target, ignore_index=255)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = upsample_cross_entropy(logits, target, ignore_index=255)
    graph.replay()
    assert torch.equal(captured, expected[0])


@pytest.mark.cuda
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_cuda_agrees_with_cpu(sizes):
    (h, w), (H, W) = sizes
    logits, target = torch.randn(2, 21, h, w), random_labels((2, H, W), 21)
    target[0, 0, 0] = 1
    cpu = loss_and_grad(upsample_cross_entropy, logits, target, ignore_index=255, reduction="none")
    cuda = loss_and_grad(
        upsample_cross_entropy, logits.cuda(), target.cuda(), ignore_index=255, reduction="none"
    )
    torch.testing.assert_close([t.cpu() for t in cuda], list(cpu), rtol=1e-5, atol=1e-6)
