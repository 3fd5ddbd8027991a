"""The losses of one output by name, with its accuracy: what `Segmentor` and the decode heads share."""

# SPDX-License-Identifier: Apache-2.0
import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segfast.errors import LabelError, UserError
from segfast.models.binary_loss import class_counts
from segfast.models.losses import CrossEntropyLoss
from segfast.models.pixel_loss import PixelLoss
from segfast.models.reductions import accuracy, accuracy_of
from segfast.models.resize import resize
from segfast.structures import SegDataSample


def named_losses(
    modules: Iterable[nn.Module],
    logits: Tensor,
    label: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = 255,
    align_corners: bool = False,
) -> tuple[dict[str, Tensor], Tensor]:
    """Evaluate every loss on the same logits and labels.

    A `PixelLoss` reads the logits at their own size; the accuracy comes out of the first
    cross-entropy's pass. Every other loss is called as `f(logits, label[, weight=][, ignore_index=])`
    with logits resized to the labels' size (once for all of them) and int64 labels.

    Args:
        modules: the losses.
        logits: (N, C, h, w).
        label: (N, H, W) integer.
        weight: (N, H, W) factor per pixel.
        ignore_index: label that no loss counts.
        align_corners: of the resize.

    Returns:
        The losses by their `loss_name`, equal names added up, and the accuracy (1,) in percent.

    Raises:
        UserError: there is a `weight` and a loss does not take one.
        LabelError: on the CPU, a label is out of range.
    """
    results: dict[str, Tensor] = {}
    acc_seg: Any = None
    full: Tensor | None = None
    options = {"weight": weight, "ignore_index": ignore_index}
    for module in modules:
        if isinstance(module, CrossEntropyLoss):
            fused: dict[str, Any] = {**options, "align_corners": align_corners}
            if acc_seg is None:
                value, acc_seg = module.loss_and_accuracy(logits, label, **fused)
            else:
                value = module(logits, label, **fused)
        elif isinstance(module, PixelLoss):
            value = module(logits, label, **options, align_corners=align_corners)
        else:
            if full is None:
                full = resize(logits, label.shape[-2:], align_corners, repeatable=True)
            target = label if label.is_floating_point() else label.long()
            value = module(full, target, **accepted_options(module, options))
        name = getattr(module, "loss_name", f"loss_{type(module).__name__.lower()}")
        results[name] = results[name] + value if name in results else value
    if acc_seg is None:
        assert results, "there is no loss"
        # A foreign loss may read labels in its own way: nothing is checked.
        if full is not None and not label.is_floating_point():
            acc_seg = accuracy(full.detach(), label, ignore_index=ignore_index)
        else:
            acc_seg = accuracy_of(*class_counts(logits, label, ignore_index, align_corners))
    return results, acc_seg


def accepted_options(module: nn.Module, options: dict[str, Any]) -> dict[str, Any]:
    """Those keyword arguments that a loss takes; only a weight map may not go missing."""
    parameters = inspect.signature(module.forward).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return options
    if options.get("weight") is not None and "weight" not in parameters:
        raise UserError(
            f"{type(module).__name__} takes no weight per pixel, so it cannot be used with a "
            "sampler (remove the sampler, or give the loss's forward an argument `weight`)"
        )
    return {key: value for key, value in options.items() if key in parameters}


def stack_labels(samples: Sequence[SegDataSample]) -> Tensor:
    """The ground truth of a batch, (N, 1, H, W).

    Raises:
        UserError: a sample has none.
    """
    try:
        maps: list[Tensor] = [sample.gt_sem_seg.data for sample in samples]  # type: ignore[attr-defined]
    except AttributeError:
        bare = [sample for sample in samples if "gt_sem_seg" not in sample]
        if not bare:
            raise
        raise UserError(
            f"{bare[0].get('img_path') or 'a sample'}: holds no labels (gt_sem_seg) to train on (hint: "
            "data_prefix.seg_map_path names the masks' folder, LoadAnnotations in the pipeline reads them)"
        ) from None
    return torch.stack(maps)


def name_bad_label(
    error: LabelError, channels: int, samples: Sequence[SegDataSample], ignore_index: int
) -> LabelError:
    """The same error with the first image to blame in front."""
    limit = max(channels, 2)
    for sample in samples:
        label = sample.gt_sem_seg.data.long()  # type: ignore[attr-defined]
        if ((label != ignore_index) & ((label < 0) | (label >= limit))).any():
            path = sample.get("seg_map_path") or sample.get("img_path")
            return LabelError(f"{path}: {error}") if path else error
    return error
