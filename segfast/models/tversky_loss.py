"""TverskyLoss: the Dice loss with separate prices for false positives and false negatives.

Math, per image and class, over valid pixels: TP = sum p t, FP = sum p (1 - t), FN = sum (1 - p) t; the loss is the mean
over classes of w_c (1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth)).

Source: Salehi et al. 2017, arXiv:1706.05721.
"""

# SPDX-License-Identifier: Apache-2.0
import math
from collections.abc import Sequence

from torch import Tensor

from segfast.models.pixel_loss import PixelLoss
from segfast.models.reductions import weight_reduce_loss
from segfast.models.region_sums import counted_classes, pick_classes, region_sums
from segfast.registry import MODELS


@MODELS.register_module()
class TverskyLoss(PixelLoss):
    """Tversky loss of every image, averaged over classes; softmax, or sigmoid for one channel.

    Args:
        smooth: added to both sides of the quotient.
        class_weight: one factor per class.
        loss_weight: factor on the result.
        ignore_index: label that counts nowhere, beside the one that `forward` names; if it is a
            class, its term is left out (the mean still divides by C). None for none.
        alpha: price of false positives.
        beta: price of false negatives; alpha + beta = 1.
        loss_name: its key among the losses.
        reduction: of the images' losses: "mean", "sum" or "none".
    """

    def __init__(
        self,
        smooth: float = 1,
        class_weight: Sequence[float] | Tensor | str | None = None,
        loss_weight: float = 1.0,
        ignore_index: int | None = 255,
        alpha: float = 0.3,
        beta: float = 0.7,
        loss_name: str = "loss_tversky",
        reduction: str = "mean",
    ) -> None:
        """Check the settings and read `class_weight`."""
        super().__init__(reduction, class_weight, loss_weight, loss_name)
        assert math.isclose(alpha + beta, 1.0), f"alpha + beta should be 1, got {alpha + beta}"
        self.smooth = smooth
        self.ignore_index = ignore_index
        self.alpha = alpha
        self.beta = beta

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        ignore_index: int | None = 255,
        *,
        align_corners: bool = False,
        **_: object,
    ) -> Tensor:
        """The loss; arguments, result and errors as `DiceLoss.forward`."""
        reduction = self._chosen_reduction(reduction_override, avg_factor)
        ignored = (ignore_index, self.ignore_index)
        per_image = weight if weight is not None and weight.dim() == 1 < target.dim() else None
        sums = region_sums(
            pred,
            target,
            activation="softmax",
            pixel_weight=weight if per_image is None else None,
            ignored=ignored,
            align_corners=align_corners,
        )
        false_positive, false_negative = sums.pred - sums.overlap, sums.target - sums.overlap
        errors = self.alpha * false_positive + self.beta * false_negative
        loss = 1 - (sums.overlap + self.smooth) / (sums.overlap + errors + self.smooth)
        factors = self._class_factors(pred)
        loss = loss if factors is None else loss * factors
        channels = pred.shape[1]
        loss = pick_classes(loss, counted_classes(channels, ignored)).sum(1) / channels
        loss = loss * sums.is_valid
        return self.loss_weight * weight_reduce_loss(loss, per_image, reduction, avg_factor)
