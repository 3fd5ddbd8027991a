"""Bilinear upsampling and cross-entropy in one pass.

Math: `cross_entropy(interpolate(logits, (H, W), mode="bilinear"), target)`, forward and gradient, without the
(N, C, H, W) tensor: all pixels between four neighbouring low-resolution samples blend the same four corners, so each is
blended, reduced and forgotten in registers, and a sample's gradient gathers from its four cells in a fixed order.

Memory beyond inputs and outputs: 8 bytes per full-size pixel for the backward pass, whatever the number of classes.

Source: torch.nn.functional.interpolate and cross_entropy (semantics). The fusion is ours.
"""

# SPDX-License-Identifier: Apache-2.0

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segfast.ops._call import call_checked, refuse_tangents
from segfast.ops.cross_entropy import (
    CrossEntropyTerms,
    arithmetic_factor,
    check_arguments,
    cross_entropy,
    cross_entropy_reference,
    cross_entropy_terms,
    fake_outputs,
    make_terms,
    no_double_backward,
    public_dtype,
    setup_context,
)


def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    align_corners: bool = False,
    return_accuracy: bool = False,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of logits resized to the target's size, without resizing them in memory.

    Args:
        logits: (N, C, h, w), float32, float64, float16 or bfloat16, any strides; h, w >= 1, of any ratio to H, W
            (equal ones take the plain kernel).
        target: (N, H, W), uint8, int16, int32 or int64, values in [0, C) or `ignore_index`.
        weight: (C,), a factor per class; the mean divides by the sum of weight[target], as torch does.
        pixel_weight: (N, H, W), a factor per pixel; it does not change the mean's denominator.
        ignore_index: label that counts neither in the loss nor in the denominator.
        reduction: "mean", "sum" or "none".
        label_smoothing: in [0, 1], mass spread evenly over all classes.
        align_corners: as in `torch.nn.functional.interpolate`.
        return_accuracy: also count correct and valid pixels, in the same pass.

    Returns:
        The loss: scalar, or (N, H, W) for reduction "none"; logits' dtype, float32 under autocast. With
        `return_accuracy`, (loss, correct, valid): 0-d int64 counts on the device; the first class wins a tie.

    Raises:
        ValueError: shapes, reduction or label_smoothing do not fit.
        TypeError: a dtype that is not listed above.
        LabelError: on the CPU, a label is outside [0, C) and not `ignore_index`; on CUDA `check_labels()` raises it.

    Note:
        Interpolation and softmax in float32 (float64 for float64), not rounded in between. The same bits on every run,
        also under `torch.use_deterministic_algorithms(True)`. Never waits for the device.
    """
    op = "upsample_cross_entropy"
    code = check_arguments(op, logits, target, weight, pixel_weight, reduction, label_smoothing)
    if logits.shape[2:] == target.shape[1:] and not return_accuracy:  # nothing to resize
        return cross_entropy(
            logits,
            target,
            weight=weight,
            pixel_weight=pixel_weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    loss, _, _, tally = _call(
        logits,
        target,
        weight,
        pixel_weight,
        ignore_index,
        code,
        label_smoothing,
        return_accuracy,
        align_corners,
    )
    loss = public_dtype(loss, logits)
    return (loss, tally[0], tally[1]) if return_accuracy else loss


def upsample_cross_entropy_terms(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    align_corners: bool = False,
    with_accuracy: bool = False,
) -> CrossEntropyTerms:
    """The summed loss, its denominator and the pixel counts, for loss modules with a mean rule of their own.

    Arguments and errors as `upsample_cross_entropy`; equal sizes take the plain kernel. The loss stays in float32.
    """
    if logits.dim() == 4 and logits.shape[2:] == target.shape[1:]:
        return cross_entropy_terms(
            logits,
            target,
            weight=weight,
            pixel_weight=pixel_weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            with_accuracy=with_accuracy,
        )
    op = "upsample_cross_entropy"
    code = check_arguments(op, logits, target, weight, pixel_weight, "sum", label_smoothing)
    outputs = _call(
        logits,
        target,
        weight,
        pixel_weight,
        ignore_index,
        code,
        label_smoothing,
        with_accuracy,
        align_corners,
    )
    return make_terms(outputs, with_accuracy)


def upsample_cross_entropy_reference(
    logits: Tensor,
    target: Tensor,
    *,
    align_corners: bool = False,
    return_accuracy: bool = False,
    **options: Any,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """The eager composition that defines `upsample_cross_entropy`; options as there."""
    full = F.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=align_corners)
    loss = cross_entropy_reference(full, target, **options)
    if not return_accuracy:
        return loss
    valid = target.long().ne(options.get("ignore_index", -100))
    return loss, ((full.argmax(1) == target) & valid).sum(), valid.sum()


def _call(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
    accuracy: bool,
    align_corners: bool,
) -> tuple[Tensor, ...]:
    """Call the operator with factors in its arithmetic dtype.

    In a training step on the CPU the gradient is formed in the same walk: each exponential is computed once and
    nothing is saved per full-resolution pixel, only the gradient in the logits' shape.
    """
    refuse_tangents("upsample_cross_entropy", (logits,))
    fused = (
        logits.device.type == "cpu"
        and reduction != 0
        and logits.requires_grad
        and torch.is_grad_enabled()
    )
    ops = torch.ops.segfast
    return call_checked(
        ops.upsample_cross_entropy_with_gradient if fused else ops.upsample_cross_entropy,
        logits,
        target,
        arithmetic_factor(weight, logits),
        arithmetic_factor(pixel_weight, logits),
        ignore_index,
        reduction,
        label_smoothing,
        accuracy,
        align_corners,
    )


@torch.library.register_fake("segfast::upsample_cross_entropy")
def _fake(
    logits,
    target,
    weight,
    pixel_weight,
    ignore_index,
    reduction,
    label_smoothing,
    accuracy,
    align_corners,
):
    loss, stats, weight_sum, tally = fake_outputs(logits, target, reduction)
    if logits.device.type == "cuda":  # one number per pixel: the base-2 log-sum-exp
        stats = stats.new_empty(target.shape)
    return loss, stats, weight_sum, tally


@torch.library.register_fake("segfast::upsample_cross_entropy_backward")
def _fake_backward(grad_loss, logits, *args):
    return torch.empty_like(logits)


def _backward(ctx, grad_loss, *_):
    if grad_loss is None:
        return (None,) * 9
    ignore_index, reduction, label_smoothing, _accuracy, align_corners = ctx.options
    grad = call_checked(
        torch.ops.segfast.upsample_cross_entropy_backward,
        grad_loss,
        *ctx.saved_tensors,
        ignore_index,
        reduction,
        label_smoothing,
        align_corners,
    )
    return grad, None, None, None, None, None, None, None, None


torch.library.register_autograd(
    "segfast::upsample_cross_entropy", _backward, setup_context=setup_context
)
torch.library.register_autograd("segfast::upsample_cross_entropy_backward", no_double_backward)


@torch.library.register_fake("segfast::upsample_cross_entropy_with_gradient")
def _fake_with_gradient(logits, target, weight, pixel_weight, ignore_index, reduction, *options):
    loss, stats, weight_sum, tally = fake_outputs(logits, target, reduction)
    return loss, logits.new_empty(logits.shape, dtype=stats.dtype), weight_sum, tally


@torch.library.register_fake("segfast::scale_gradient")
def _fake_scale_gradient(grad_loss, logits, *args):
    return torch.empty_like(logits)


def _save_gradient(ctx, inputs, output):
    ctx.save_for_backward(inputs[0], output[1], output[2])
    ctx.reduction = inputs[5]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])


def _scale(ctx, grad_loss, *_):
    grad = None
    if grad_loss is not None:
        grad = call_checked(
            torch.ops.segfast.scale_gradient, grad_loss, *ctx.saved_tensors, ctx.reduction
        )
    return (grad, *(None,) * 8)


torch.library.register_autograd(
    "segfast::upsample_cross_entropy_with_gradient", _scale, setup_context=_save_gradient
)
torch.library.register_autograd("segfast::scale_gradient", no_double_backward)
