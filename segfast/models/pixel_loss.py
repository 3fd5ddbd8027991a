"""PixelLoss: what the loss modules share: a name, a factor, class weights and a reduction."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segfast.errors import UserError
from segfast.models.reductions import load_class_weight

REDUCTIONS = ("none", "mean", "sum")


class PixelLoss(nn.Module):
    """A loss that reads logits (N, C, h, w) at any stride against labels (N, H, W).

    Subclasses are called as `f(logits, label, weight=None, avg_factor=None, reduction_override=None,
    ignore_index=, align_corners=False)`; `named_losses` hands them the network's own logits, and
    upsamples itself only for losses of other classes.

    Args:
        reduction: "mean", "sum" or "none".
        class_weight: one factor per class: numbers, a tensor, or the path of a .npy, .json or .yaml
            file.
        loss_weight: factor on the result.
        loss_name: its key among the losses; needs to contain "loss" to be minimised.
    """

    _factors: Tensor | None

    def __init__(
        self,
        reduction: str,
        class_weight: Sequence[float] | Tensor | str | None,
        loss_weight: float,
        loss_name: str,
    ) -> None:
        """Check the reduction and read `class_weight`.

        Raises:
            UserError: an unknown reduction; a file of class weights that cannot be read.
        """
        super().__init__()
        if reduction not in REDUCTIONS:
            raise UserError(
                f"{type(self).__name__}: reduction is 'mean', 'sum' or 'none', not {reduction!r}"
            )
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.class_weight = load_class_weight(class_weight)
        self._loss_name = loss_name
        factors = self.class_weight
        if factors is not None:
            factors = torch.as_tensor(factors, dtype=torch.float32)
        self.register_buffer("_factors", factors, persistent=False)

    @property
    def loss_name(self) -> str:
        """The key of this loss in a model's dict of losses."""
        return self._loss_name

    def _class_factors(self, logits: Tensor) -> Tensor | None:
        """The class weights (C,), where the logits are.

        Raises:
            UserError: their number is not the logits' number of channels.
        """
        factors = self._factors
        if factors is None:
            return None
        channels = logits.shape[1]
        if tuple(factors.shape) != (channels,):
            raise UserError(
                f"{type(self).__name__}: class_weight has shape {tuple(factors.shape)}, but the "
                f"network has {channels} output channels"
            )
        return factors.to(logits.device)

    def _chosen_reduction(self, override: str | None, avg_factor: float | Tensor | None) -> str:
        """The reduction of this call."""
        reduction = override or self.reduction
        assert reduction in REDUCTIONS, f"unknown reduction {reduction!r}"
        if reduction == "sum" and avg_factor is not None:
            raise ValueError('avg_factor can not be used with reduction="sum"')
        return reduction
