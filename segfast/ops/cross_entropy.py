"""Softmax cross-entropy with an ignored label.

Math: `loss_p = weight[y_p] * (logsumexp(x_p) - x_p[y_p])`, with label smoothing as torch defines it. The compiled
kernel reads the logits once, in their own dtype and layout, and the labels in theirs; it saves two numbers per pixel
for the backward pass, which recomputes the softmax. In a training step on CUDA the gradient is formed in the same walk.

Source: torch.nn.functional.cross_entropy (semantics); Milakov and Gimelshein 2018, arXiv:1805.02867 (one-pass softmax).
"""

# SPDX-License-Identifier: Apache-2.0

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import segfast._native  # noqa: F401  (registers torch.ops.segfast)
from segfast.ops._call import call_checked, refuse_tangents
from segfast.ops._checks import check_class_count, check_logits, check_target, check_upsampled

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}
ONE_WALK_CLASSES = 640  # kMostClassesOfBoth of csrc/cuda/cross_entropy.cu


class CrossEntropyTerms(NamedTuple):
    """The parts of a loss, for modules with a mean rule of their own; all 0-d, on the device.

    `loss_sum` (float32 or float64, differentiable), `weight_sum` (its torch-style denominator), `num_correct` and
    `num_valid` (int64; None unless accuracy was asked for).
    """

    loss_sum: Tensor
    weight_sum: Tensor
    num_correct: Tensor | None
    num_valid: Tensor | None


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of class indices: a drop-in for `torch.nn.functional.cross_entropy`.

    Args:
        logits: (N, C), (N, C, d1, ...) or (C,), float32, float64, float16 or bfloat16, any strides.
        target: (N,), (N, d1, ...) or (), uint8, int16, int32 or int64, values in [0, C) or `ignore_index`.
        weight: (C,), a factor per class; the mean divides by the sum of weight[target], as torch does.
        pixel_weight: target's shape, a factor per pixel; it does not change the mean's denominator.
        ignore_index: label that counts neither in the loss nor in the denominator.
        reduction: "mean", "sum" or "none".
        label_smoothing: in [0, 1], mass spread evenly over all classes.

    Returns:
        Scalar, or target's shape for reduction "none"; logits' dtype, float32 under autocast (as torch). With every
        pixel ignored the mean is NaN (as torch) and the gradient is 0.

    Raises:
        ValueError: shapes, reduction or label_smoothing do not fit.
        TypeError: a dtype that is not listed above.
        LabelError: on the CPU, a label is outside [0, C) and not `ignore_index`. On CUDA such a pixel counts as ignored
            and `segfast.ops.check_labels()` raises.

    Note:
        Arithmetic in float32 (float64 for float64). The same bits on every run. Never waits for the device.

    >>> float(cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([1])))
    0.6931471824645996
    """
    reduction_code = check_arguments(
        "cross_entropy", logits, target, weight, pixel_weight, reduction, label_smoothing
    )
    outputs = _call(
        logits, target, weight, pixel_weight, ignore_index, reduction_code, label_smoothing, False
    )
    return public_dtype(outputs[0], logits)


def cross_entropy_terms(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    with_accuracy: bool = False,
) -> CrossEntropyTerms:
    """The summed loss, its denominator and, from the same pass, the counts of correct and valid pixels.

    Arguments and errors as `cross_entropy`; the loss stays in float32 for half-precision logits.
    """
    reduction_code = check_arguments(
        "cross_entropy", logits, target, weight, pixel_weight, "sum", label_smoothing
    )
    return make_terms(
        _call(
            logits,
            target,
            weight,
            pixel_weight,
            ignore_index,
            reduction_code,
            label_smoothing,
            with_accuracy,
        ),
        with_accuracy,
    )


def cross_entropy_reference(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The eager composition that defines `cross_entropy`; runs in any dtype, float64 included."""
    label = target.long()
    loss = F.cross_entropy(
        logits,
        label,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction if pixel_weight is None else "none",
        label_smoothing=label_smoothing,
    )
    if pixel_weight is None:
        return loss
    loss = loss * pixel_weight
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    valid = label != ignore_index
    denominator = valid.sum() if weight is None else weight[label[valid]].sum()
    return loss.sum() / denominator


def check_arguments(
    op: str,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    reduction: str,
    label_smoothing: float,
) -> int:
    """Reject what the kernels cannot take, with a remedy; return the reduction's number."""
    check_logits(op, logits)
    check_target(op, target, logits)
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"segfast::{op}: expected reduction 'mean', 'sum' or 'none', got {reduction!r}"
        )
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(
            f"segfast::{op}: expected label_smoothing in [0, 1], got {label_smoothing}"
        )
    num_classes = _check_shapes(op, logits, target)
    if weight is not None and weight.shape != (num_classes,):
        raise ValueError(
            f"segfast::{op}: expected weight ({num_classes},), one per class, got {tuple(weight.shape)}"
        )
    if pixel_weight is not None and pixel_weight.shape != target.shape:
        raise ValueError(
            f"segfast::{op}: expected pixel_weight of target's shape {tuple(target.shape)}, "
            f"got {tuple(pixel_weight.shape)}"
        )
    for name, factor in (("weight", weight), ("pixel_weight", pixel_weight)):
        if factor is not None and factor.requires_grad:
            raise ValueError(
                f"segfast::{op}: {name} gets no gradient "
                f"(hint: {name}.detach(), or multiply the loss of reduction='none')"
            )
        if factor is not None and factor.device != logits.device:
            raise ValueError(
                f"segfast::{op}: expected {name} on {logits.device}, got {factor.device}"
            )
    return REDUCTIONS[reduction]


def _check_shapes(op: str, logits: Tensor, target: Tensor) -> int:
    """The number of classes, or a ValueError naming both shapes."""
    if op.startswith("upsample"):
        check_upsampled(op, logits, target)
        return logits.shape[1]
    spatial = logits.shape[:1] + logits.shape[2:] if logits.dim() > 1 else logits.shape[:0]
    if logits.dim() == 0 or target.shape != spatial:
        raise ValueError(
            f"segfast::{op}: expected logits (N, C, ...) and target (N, ...), got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}"
            + (
                " (hint: target.squeeze(1))"
                if target.dim() == logits.dim() and target.dim() > 1
                else ""
            )
        )
    num_classes = logits.shape[1] if logits.dim() > 1 else logits.shape[0]
    if num_classes == 0:
        raise ValueError(
            f"segfast::{op}: expected at least one class, got logits {tuple(logits.shape)}"
        )
    check_class_count(op, num_classes)
    return num_classes


def arithmetic_factor(factor: Tensor | None, logits: Tensor) -> Tensor | None:
    """A weight in the dtype the kernel computes in."""
    if factor is None:
        return None
    return factor.to(torch.float64 if logits.dtype == torch.float64 else torch.float32).contiguous()


def public_dtype(loss: Tensor, logits: Tensor) -> Tensor:
    """Round a float32 loss to half-precision logits' dtype, as torch does outside autocast."""
    if logits.dtype in (torch.float16, torch.bfloat16) and not torch.is_autocast_enabled(
        logits.device.type
    ):
        return loss.to(logits.dtype)
    return loss


def make_terms(outputs: tuple[Tensor, ...], with_accuracy: bool) -> CrossEntropyTerms:
    """Name the operator's four outputs."""
    loss_sum, _, weight_sum, tally = outputs
    if not with_accuracy:
        return CrossEntropyTerms(loss_sum, weight_sum, None, None)
    return CrossEntropyTerms(loss_sum, weight_sum, tally[0], tally[1])


def _call(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
    accuracy: bool,
) -> tuple[Tensor, ...]:
    """Call the operator; more than two spatial dimensions are flattened, which the kernels walk as one row."""
    refuse_tangents("cross_entropy", (logits,))
    shape = target.shape
    if target.dim() > 3:
        logits, target = logits.flatten(2), target.flatten(1)
        pixel_weight = pixel_weight if pixel_weight is None else pixel_weight.flatten(1)
    weight, pixel_weight = (
        arithmetic_factor(weight, logits),
        arithmetic_factor(pixel_weight, logits),
    )
    ops = torch.ops.segfast
    loss, *rest = call_checked(
        ops.cross_entropy_with_gradient if _in_one_walk(logits, reduction) else ops.cross_entropy,
        logits,
        target,
        weight,
        pixel_weight,
        ignore_index,
        reduction,
        label_smoothing,
        accuracy,
    )
    return (loss.view(shape) if reduction == 0 else loss, *rest)


def _in_one_walk(logits: Tensor, reduction: int) -> bool:
    """Whether the gradient is formed in the forward walk, for an upstream gradient of 1: a training step on CUDA.

    Not that of a sum, which is divided by something later: to scale the gradient costs as much as to form it. Not in
    float16, where the gradient of a mean would round to 0 before a loss scale could lift it.
    """
    return (
        logits.requires_grad
        and torch.is_grad_enabled()
        and logits.device.type == "cuda"
        and logits.dtype in (torch.float32, torch.bfloat16)
        and logits.shape[min(1, logits.dim() - 1)] <= ONE_WALK_CLASSES
        and reduction == REDUCTIONS["mean"]
        and not torch.compiler.is_compiling()
    )


def fake_outputs(
    logits: Tensor, target: Tensor, reduction: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shapes and dtypes of the operators' outputs."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return (
        logits.new_empty(target.shape if reduction == 0 else (), dtype=dtype),
        logits.new_empty((2, *target.shape), dtype=dtype),
        logits.new_empty((), dtype=dtype),
        logits.new_empty((2,), dtype=torch.int64),
    )


@torch.library.register_fake("segfast::cross_entropy")
def _fake(logits, target, weight, pixel_weight, ignore_index, reduction, label_smoothing, accuracy):
    return fake_outputs(logits, target, reduction)


@torch.library.register_fake("segfast::cross_entropy_backward")
def _fake_backward(grad_loss, logits, *args):
    return torch.empty_like(logits)


def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    """Save the inputs, two numbers per pixel and the denominator: never a probability."""
    logits, target, weight, pixel_weight, *options = inputs
    ctx.save_for_backward(logits, target, weight, pixel_weight, output[1], output[2])
    ctx.options = options
    ctx.set_materialize_grads(False)  # else 8 bytes of zeros a pixel, for outputs without gradient
    ctx.mark_non_differentiable(output[1], output[2], output[3])


def _backward(ctx, grad_loss, *_):
    if grad_loss is None:
        return (None,) * 8
    ignore_index, reduction, label_smoothing, _accuracy = ctx.options
    grad = call_checked(
        torch.ops.segfast.cross_entropy_backward,
        grad_loss,
        *ctx.saved_tensors,
        ignore_index,
        reduction,
        label_smoothing,
    )
    return grad, None, None, None, None, None, None, None


def no_double_backward(ctx: Any, grad: Tensor) -> None:
    """The loss is differentiable once."""
    raise NotImplementedError(
        "segfast: cross-entropy has no second derivative (hint: use the *_reference function for gradient penalties)"
    )


torch.library.register_autograd("segfast::cross_entropy", _backward, setup_context=setup_context)
torch.library.register_autograd("segfast::cross_entropy_backward", no_double_backward)


@torch.library.register_fake("segfast::cross_entropy_with_gradient")
def _fake_with_gradient(logits, target, weight, pixel_weight, ignore_index, reduction, *options):
    loss, _, weight_sum, tally = fake_outputs(logits, target, reduction)
    return loss, torch.empty_like(logits), weight_sum, tally


@torch.library.register_fake("segfast::scale_gradient_")
def _fake_scale(gradient, grad_loss):
    return None


def _keep_gradient(ctx, inputs, output):
    logits, target, weight, pixel_weight, *options = inputs
    ctx.save_for_backward(logits, target, weight, pixel_weight)
    ctx.options = options
    ctx.gradient = output[1]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])


def _hand_gradient_over(ctx, grad_loss, *_):
    """The forward walk's gradient, scaled in place. A second backward, or one with create_graph, forms it anew."""
    grad, ctx.gradient = ctx.gradient, None
    ops = torch.ops.segfast
    if grad_loss is None:
        grad = None
    elif grad is not None and not torch.is_grad_enabled():
        ops.scale_gradient_(grad, grad_loss)  # reads and writes nothing where grad_loss is 1
    else:
        inputs, (ignore_index, reduction, smoothing, _) = ctx.saved_tensors, ctx.options
        options = (ignore_index, reduction, smoothing)
        with torch.no_grad():
            _, stats, weight_sum, _ = call_checked(ops.cross_entropy, *inputs, *options, False)
        saved = (*inputs, stats, weight_sum)
        grad = call_checked(ops.cross_entropy_backward, grad_loss, *saved, *options)
    return (grad, *(None,) * 7)


torch.library.register_autograd(
    "segfast::cross_entropy_with_gradient", _hand_gradient_over, setup_context=_keep_gradient
)
