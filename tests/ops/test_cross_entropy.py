"""cross_entropy against torch: values, gradients, layouts, limits, rejections."""

# SPDX-License-Identifier: Apache-2.0

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import DEVICES, LAYOUTS, assert_within_budget, random_labels, strided

from segfast.errors import LabelError
from segfast.ops import cross_entropy, cross_entropy_reference, cross_entropy_terms

OPTIONS = [
    {"weighted": weighted, "pixel": pixel, "label_smoothing": smoothing, "reduction": reduction}
    for weighted, pixel, smoothing, reduction in itertools.product(
        (False, True), (False, True), (0.0, 0.1), ("mean", "sum", "none")
    )
]


def factors(options, num_classes, shape, device):
    options = dict(options)
    weight = torch.rand(num_classes, device=device) + 0.1 if options.pop("weighted") else None
    pixel_weight = torch.rand(shape, device=device) if options.pop("pixel") else None
    return options | {"weight": weight, "pixel_weight": pixel_weight}


def in_float64(options):
    return {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in options.items()}


def loss_and_grad(function, logits, target, **options):
    """Loss and the gradient for a fixed random upstream gradient."""
    logits = logits.detach().requires_grad_()
    loss = function(logits, target, **options)
    upstream = torch.linspace(
        0.5, 1.5, max(loss.numel(), 1), device=logits.device, dtype=torch.float64
    )
    grad = torch.autograd.grad(
        loss, logits, upstream[: loss.numel()].view(loss.shape).to(loss.dtype)
    )[0]
    return loss.detach(), grad


@pytest.mark.parametrize("device", DEVICES)
def test_golden(
    device,
):  # softmax of (0, ln 3) is (1/4, 3/4): loss is ln 4 for class 0, gradient (-3/4, 3/4)
    logits = torch.tensor([[0.0, math.log(3.0)]], device=device, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0], device=device))
    loss.backward()
    torch.testing.assert_close(loss.detach().cpu(), torch.tensor(math.log(4.0)))
    torch.testing.assert_close(logits.grad.cpu(), torch.tensor([[-0.75, 0.75]]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_matches_reference(device, options):
    logits = torch.randn(2, 7, 13, 19, device=device) * 4
    target = random_labels((2, 13, 19), 7, device=device)
    options = factors(options, 7, target.shape, device) | {"ignore_index": 255}
    actual = loss_and_grad(cross_entropy, logits, target, **options)
    eager = loss_and_grad(cross_entropy_reference, logits, target, **options)
    truth = loss_and_grad(cross_entropy_reference, logits.double(), target, **in_float64(options))
    assert actual[0].dtype == eager[0].dtype
    assert_within_budget(
        actual[0], eager[0], truth[0], slack=2e-7 * max(1.0, truth[0].abs().max().item())
    )
    assert_within_budget(
        actual[1], eager[1], truth[1], slack=2e-7 * max(1e-3, truth[1].abs().max().item())
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "shape", [(6,), (5, 6), (3, 6, 4), (2, 6, 3, 5), (2, 6, 2, 3, 4), (1, 1, 9, 9), (2, 300, 5, 7)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "label_dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str
)
def test_error_budget(device, shape, dtype, label_dtype):
    num_classes = shape[1] if len(shape) > 1 else shape[0]
    logits = (torch.randn(shape, device=device) * 3).to(dtype)
    pixels = shape[:1] + shape[2:] if len(shape) > 1 else ()
    target = random_labels(
        pixels,
        min(num_classes, 100),
        ignored=0.1,
        ignore_index=111,
        dtype=label_dtype,
        device=device,
    )
    if (target == 111).all():
        target.fill_(0)
    options = {"ignore_index": 111}
    actual = loss_and_grad(cross_entropy, logits, target, **options)
    eager = loss_and_grad(cross_entropy_reference, logits, target, **options)
    truth = loss_and_grad(cross_entropy_reference, logits.double(), target, **options)
    assert actual[0].dtype == eager[0].dtype == dtype
    assert_within_budget(
        actual[0], eager[0], truth[0], slack=3e-7 * max(1.0, truth[0].abs().item())
    )
    assert_within_budget(actual[1], eager[1], truth[1], slack=3e-7)


def test_large_offsets_keep_precision():  # (x - max) - log_sum, not x - lse: the offset must not cost digits
    logits = torch.randn(1, 5, 8, 8) + 3.0e4
    target = torch.randint(5, (1, 8, 8))
    actual = loss_and_grad(cross_entropy, logits, target)
    truth = loss_and_grad(cross_entropy_reference, logits.double(), target)
    torch.testing.assert_close(actual[0].double(), truth[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(actual[1].double(), truth[1], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck(smoothing, reduction):
    logits = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    target = random_labels((2, 3, 5), 4)
    options = {
        "weight": torch.rand(4, dtype=torch.float64),
        "pixel_weight": torch.rand(2, 3, 5, dtype=torch.float64),
    }
    torch.autograd.gradcheck(
        lambda x: cross_entropy(
            x, target, ignore_index=255, reduction=reduction, label_smoothing=smoothing, **options
        ),
        logits,
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(device, layout):
    logits = torch.randn(2, 5, 9, 70, device=device)
    target = random_labels((2, 9, 70), 5, device=device)
    view = strided(logits, layout)
    map_view = strided(target.unsqueeze(1), layout).squeeze(1)
    pixel_weight = torch.rand(2, 9, 70, device=device)
    options = {"ignore_index": 255, "reduction": "none"}
    expected = loss_and_grad(cross_entropy, logits, target, pixel_weight=pixel_weight, **options)
    actual = loss_and_grad(
        cross_entropy, view, map_view, pixel_weight=strided(pixel_weight, "transposed"), **options
    )
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)
    assert actual[1].stride() == torch.empty_like(view).stride()


# Views whose rows follow each other (stride_h = W stride_w) while a gradient without overlaps, in the order of the strides,
# has classes between its rows: the logits fold into one row, the gradient does not. And the other way round.
FOLDS = [
    ((1, 3, 4, 4), (0, 2, 4, 1)),
    ((1, 3, 4, 4), (999, 2, 4, 1)),
    ((2, 3, 5, 4), (7, 3, 4, 1)),
    ((2, 2, 2, 2), (0, 6, 8, 4)),
    ((2, 19, 4, 40), (50, 45, 80, 2)),
    ((2, 3, 4, 5), (120, 40, 10, 2)),
    ((2, 3, 4, 5), (200, 1, 24, 4)),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("shape", "strides"), FOLDS, ids=str)
def test_gradient_folds_otherwise_than_logits(device, shape, strides, reduction):
    size = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    logits = torch.randn(size, device=device).as_strided(shape, strides)
    target = random_labels((shape[0], *shape[2:]), shape[1], device=device)
    options = {"ignore_index": 255, "reduction": reduction}
    actual = loss_and_grad(cross_entropy, logits, target, **options)
    expected = loss_and_grad(cross_entropy_reference, logits.clone(), target, **options)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    assert actual[1].stride() == torch.empty_like(logits).stride()


@pytest.mark.parametrize("device", DEVICES)
def test_gradient_reaches_what_a_view_overlaps(device):
    memory = torch.randn(40, device=device, requires_grad=True)
    target = random_labels((1, 4, 4), 3, device=device)
    grads = []
    for function in (cross_entropy, cross_entropy_reference):
        view = memory.as_strided((3, 16), (2, 1)).view(3, 4, 4)[None]
        grads += torch.autograd.grad(function(view, target, ignore_index=255), memory)
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [math.inf, math.nan])
def test_weight_of_an_absent_class_does_not_matter(device, weight, reduction):
    """Inverse frequencies have an infinite one for each class that no pixel has."""
    logits = torch.randn(2, 3, 4, 5, device=device)
    target = torch.randint(1, 3, (2, 4, 5), device=device)
    options = {"weight": torch.tensor([weight, 1.0, 2.0], device=device), "reduction": reduction}
    actual = loss_and_grad(cross_entropy, logits, target, **options)
    expected = loss_and_grad(cross_entropy_reference, logits, target, **options)
    assert expected[0].isfinite().all()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_degenerate(device):
    logits = torch.randn(2, 3, 4, 4, device=device, requires_grad=True)
    ignored = torch.full((2, 4, 4), 255, dtype=torch.uint8, device=device)
    mean = cross_entropy(logits, ignored, ignore_index=255)
    assert torch.isnan(mean)  # as torch
    mean.backward()
    assert (logits.grad == 0).all()
    assert cross_entropy(logits, ignored, ignore_index=255, reduction="sum") == 0
    empty = cross_entropy(logits[:0], ignored[:0], reduction="sum")
    assert empty == 0
    assert cross_entropy(logits[:0], ignored[:0], reduction="none").shape == (0, 4, 4)
    one_class = cross_entropy(
        torch.randn(2, 1, 3, 3, device=device),
        torch.zeros(2, 3, 3, dtype=torch.long, device=device),
    )
    assert one_class == 0
    masked = torch.tensor([[-math.inf, -math.inf, 0.0, 1.0, 2.0]], device=device)
    label = torch.tensor([3], device=device)
    torch.testing.assert_close(cross_entropy(masked, label), F.cross_entropy(masked, label))
    assert torch.isnan(
        cross_entropy(
            torch.tensor([[math.nan, 0.0]], device=device), torch.tensor([1], device=device)
        )
    )
    all_masked = torch.full((1, 5), -math.inf, device=device)
    assert torch.isnan(cross_entropy(all_masked, label))


@pytest.mark.parametrize("device", DEVICES)
def test_same_bits_every_run(device):
    logits = torch.randn(3, 19, 65, 129, device=device)
    target = random_labels((3, 65, 129), 19, device=device)
    runs = [loss_and_grad(cross_entropy, logits, target, ignore_index=255) for _ in range(3)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs.append(loss_and_grad(cross_entropy, logits, target, ignore_index=255))
    torch.set_num_threads(threads)
    for loss, grad in runs[1:]:
        assert torch.equal(loss, runs[0][0])
        assert torch.equal(grad, runs[0][1])


def test_terms():
    logits = torch.randn(2, 5, 6, 7, requires_grad=True)
    target = random_labels((2, 6, 7), 5)
    weight = torch.rand(5)
    terms = cross_entropy_terms(logits, target, weight=weight, ignore_index=255, with_accuracy=True)
    valid = target != 255
    torch.testing.assert_close(
        terms.loss_sum / terms.weight_sum,
        cross_entropy(logits, target, weight=weight, ignore_index=255),
    )
    torch.testing.assert_close(terms.weight_sum, weight[target[valid].long()].sum())
    assert terms.num_valid == valid.sum()
    assert terms.num_correct == ((logits.argmax(1) == target) & valid).sum()


def test_rejects():
    logits, target = torch.randn(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)
    for error, text, call in [
        (
            TypeError,
            r"expected floating-point logits, got torch.int64",
            lambda: cross_entropy(target[:, None], target),
        ),
        (
            TypeError,
            r"class indices, not probabilities",
            lambda: cross_entropy(logits, torch.rand(2, 4, 4)),
        ),
        (
            ValueError,
            r"got \(2, 3, 4, 4\) and \(2, 4, 5\)",
            lambda: cross_entropy(logits, torch.zeros(2, 4, 5, dtype=torch.long)),
        ),
        (ValueError, r"hint: target.squeeze\(1\)", lambda: cross_entropy(logits, target[:, None])),
        (
            ValueError,
            r"weight \(3,\), one per class, got \(4,\)",
            lambda: cross_entropy(logits, target, weight=torch.ones(4)),
        ),
        (
            ValueError,
            r"pixel_weight of target's shape",
            lambda: cross_entropy(logits, target, pixel_weight=torch.ones(2, 4)),
        ),
        (
            ValueError,
            r"reduction 'mean', 'sum' or 'none', got 'avg'",
            lambda: cross_entropy(logits, target, reduction="avg"),
        ),
        (
            ValueError,
            r"label_smoothing in \[0, 1\], got 2",
            lambda: cross_entropy(logits, target, label_smoothing=2.0),
        ),
        (
            ValueError,
            r"weight gets no gradient",
            lambda: cross_entropy(logits, target, weight=torch.ones(3, requires_grad=True)),
        ),
        (
            ValueError,
            r"at least one class",
            lambda: cross_entropy(torch.randn(2, 0), torch.zeros(2, dtype=torch.long)),
        ),
    ]:
        with pytest.raises(error, match=text):
            call()


def test_bad_labels_on_cpu():
    logits, target = torch.randn(2, 3, 4, 5), torch.zeros(2, 4, 5, dtype=torch.int16)
    target[1, 2, 3] = 200
    target[1, 3, 0] = -7
    with pytest.raises(
        LabelError,
        match=r"2 label\(s\) lie outside \[0, 3\).*first is 200 at \(n=1, y=2, x=3\).*reduce_zero_label",
    ):
        cross_entropy(logits, target, ignore_index=255)


@pytest.mark.cuda
def test_bad_labels_on_cuda():
    from segfast.ops import check_labels

    logits, target = torch.randn(2, 3, 4, 5, device="cuda"), torch.zeros(2, 4, 5, dtype=torch.int16)
    target[1, 2, 3] = 200
    bad = cross_entropy(logits, target.cuda(), ignore_index=255)
    good = cross_entropy(logits, target.where(target < 3, 255).cuda(), ignore_index=255)
    torch.testing.assert_close(bad, good)
    with pytest.raises(
        LabelError, match=r"1 label\(s\) lie outside \[0, 3\).*first is 200 at pixel 33"
    ):
        check_labels()
    check_labels()


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    logits = torch.randn(2, 3, 4, 5, device=device, requires_grad=True)
    target = random_labels((2, 4, 5), 3, device=device)
    weight = torch.rand(3, device=device)
    for args in [
        (None, None, 255, 1, 0.0, False),
        (weight, torch.rand(2, 4, 5, device=device), 255, 0, 0.1, True),
    ]:
        torch.library.opcheck(torch.ops.segfast.cross_entropy.default, (logits, target, *args))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(dynamic):
    compiled = torch.compile(cross_entropy, fullgraph=True, dynamic=dynamic)
    for size in (8, 12):
        logits, target = torch.randn(2, 5, size, size), random_labels((2, size, size), 5)
        expected = loss_and_grad(cross_entropy, logits, target, ignore_index=255)
        torch.testing.assert_close(
            loss_and_grad(compiled, logits, target, ignore_index=255), expected
        )


def test_deterministic_mode_and_autocast():
    logits, target = torch.randn(2, 5, 8, 8, dtype=torch.bfloat16), random_labels((2, 8, 8), 5)
    torch.use_deterministic_algorithms(True)
    try:
        assert cross_entropy(logits, target, ignore_index=255).dtype == torch.bfloat16
    finally:
        torch.use_deterministic_algorithms(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert cross_entropy(logits, target, ignore_index=255).dtype == torch.float32


def test_no_second_derivative():
    logits = torch.randn(2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(
        cross_entropy(logits, torch.tensor([0, 1])), logits, create_graph=True
    )
    with pytest.raises(NotImplementedError, match="no second derivative"):
        grad.sum().backward()


def test_no_forward_derivative():
    logits, target = torch.randn(2, 3), torch.tensor([0, 1])
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(lambda x: cross_entropy(x, target), (logits,), (logits,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits, logits)
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            cross_entropy(dual, target)
        cross_entropy(logits, target)
