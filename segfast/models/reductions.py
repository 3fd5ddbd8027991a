"""What loss modules share: reductions, weight maps, class weights from files, pixel accuracy."""

# SPDX-License-Identifier: Apache-2.0
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from segfast.errors import UserError

EPS = torch.finfo(torch.float32).eps


def reduce_loss(loss: Tensor, reduction: str) -> Tensor:
    """Reduce a loss.

    Args:
        loss: any shape.
        reduction: "none" (the tensor itself), "mean" or "sum".
    """
    assert reduction in ("none", "mean", "sum"), f"unknown reduction {reduction!r}"
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def weight_reduce_loss(
    loss: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """Weight a loss element by element, then reduce it.

    Args:
        loss: any shape.
        weight: loss's rank; size 1 along dimension 1 broadcasts.
        reduction: "none", "mean" or "sum".
        avg_factor: for "mean", divide the sum by this plus eps; "none" ignores it.

    Raises:
        ValueError: `avg_factor` with reduction "sum".
    """
    if weight is not None:
        check_weight(weight, loss)
        loss = loss * weight
    if avg_factor is None or reduction == "none":
        return reduce_loss(loss, reduction)
    if reduction == "mean":
        return loss.sum() / (avg_factor + EPS)
    raise ValueError('avg_factor can not be used with reduction="sum"')


def weighted_loss(loss_func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Give an element-wise loss `f(pred, target, **options)` the arguments of `weight_reduce_loss`.

    The result is called as `f(pred, target, weight=None, reduction="mean", avg_factor=None, **options)`.
    """

    @functools.wraps(loss_func)
    def weighted(
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        reduction: str = "mean",
        avg_factor: float | Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        loss = loss_func(pred, target, **options)
        return weight_reduce_loss(loss, weight, reduction, avg_factor)

    return weighted


def check_weight(weight: Tensor, loss: Tensor) -> None:
    """Assert that a weight map belongs to a loss or label of this shape."""
    assert weight.dim() == loss.dim(), f"expected weight of rank {loss.dim()}, got {weight.dim()}"
    if weight.dim() > 1:
        fits = weight.size(1) in (1, loss.size(1))
        assert fits, f"expected weight {tuple(loss.shape)}, got {tuple(weight.shape)}"


def match_weight(weight: Tensor, label: Tensor) -> Tensor:
    """A weight map broadcast to label's shape, float32."""
    check_weight(weight, label)
    return weight.float().expand(label.shape)


def accuracy_of(num_correct: Tensor, num_valid: Tensor) -> Tensor:
    """Counts (0-d) -> percent (1,) float32; 100 when there is no valid pixel."""
    return ((num_correct.float() + EPS) / (num_valid.float() + EPS)).view(1) * 100.0


def accuracy(
    pred: Tensor,
    target: Tensor,
    topk: int | tuple[int, ...] = 1,
    thresh: float | None = None,
    ignore_index: int | None = None,
) -> Tensor | list[Tensor]:
    """Percentage of labels among the k best-scored classes.

    Args:
        pred: (N, C, ...) scores.
        target: (N, ...) integer labels.
        topk: one k, or several.
        thresh: scores at or below this do not count as predictions.
        ignore_index: labels that are left out.

    Returns:
        (1,) float32, or a list of them when `topk` is a tuple. 0 for an empty batch, 100 when every
        label is ignored.
    """
    assert isinstance(topk, (int, tuple)), f"expected topk as int or tuple, got {type(topk)}"
    ks = (topk,) if isinstance(topk, int) else topk
    if pred.size(0) == 0:
        zeros = [pred.new_zeros(()) for _ in ks]
        return zeros[0] if isinstance(topk, int) else zeros
    assert pred.dim() == target.dim() + 1, "expected pred with one dimension more than target"
    assert pred.size(0) == target.size(0), "expected pred and target of one batch"
    assert max(ks) <= pred.size(1), f"topk {max(ks)} exceeds the {pred.size(1)} classes"
    scores, classes = pred.topk(max(ks), dim=1)
    correct = classes == target.unsqueeze(1)
    if thresh is not None:
        correct = correct & (scores > thresh)
    valid = torch.ones_like(target, dtype=torch.bool)
    if ignore_index is not None:
        valid = target != ignore_index
    correct = correct & valid.unsqueeze(1)
    results = [accuracy_of(correct[:, :k].sum(), valid.sum()) for k in ks]
    return results[0] if isinstance(topk, int) else results


class Accuracy(nn.Module):
    """`accuracy` with its settings kept.

    Args:
        topk: one k, or several.
        thresh: scores at or below this do not count as predictions.
        ignore_index: labels that are left out.
    """

    def __init__(
        self,
        topk: int | tuple[int, ...] = (1,),
        thresh: float | None = None,
        ignore_index: int | None = None,
    ) -> None:
        """Keep the settings."""
        super().__init__()
        self.topk = topk
        self.thresh = thresh
        self.ignore_index = ignore_index

    def forward(self, pred: Tensor, target: Tensor) -> Tensor | list[Tensor]:
        """Percentages, see `accuracy`."""
        return accuracy(pred, target, self.topk, self.thresh, self.ignore_index)


def load_class_weight(
    class_weight: Sequence[float] | Tensor | str | Path | None,
) -> Sequence[float] | Tensor | None:
    """Class weights as given, or read from a .npy, .json or .yaml file.

    Raises:
        UserError: no such file, or of another kind.
    """
    if not isinstance(class_weight, (str, Path)):
        return class_weight
    path = Path(class_weight)
    readers: dict[str, Any] = {
        ".npy": lambda p: np.load(p, allow_pickle=False).tolist(),
        ".json": lambda p: json.loads(p.read_text()),
        ".yaml": lambda p: yaml.safe_load(p.read_text()),
        ".yml": lambda p: yaml.safe_load(p.read_text()),
    }
    if path.suffix not in readers:
        raise UserError(f"class_weight {path}: expected a .npy, .json or .yaml file")
    try:
        return readers[path.suffix](path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"class_weight {path}: cannot be read ({reason})") from error
