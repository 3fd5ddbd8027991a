"""DiceLoss: one minus the overlap of predicted and labelled regions.

Math, with the sums of an image's valid pixels over class c: a_c = sum p t, b_c = sum p^2 and d_c = sum t^2
(`naive_dice`: sum p and sum t), and w_c a class weight:

| per_class | naive_dice | loss of an image |
|---|---|---|
| False | False | 1 - 2 sum_c w_c a_c / (sum_c w_c (b_c + d_c) + 2 eps) |
| False | True | 1 - (2 sum_c w_c a_c + eps) / (sum_c w_c (b_c + d_c) + eps) |
| True | either | the mean over classes of w_c (1 - (2 a_c + eps) / (b_c + d_c + eps)) |

Source: Milletari et al. 2016, arXiv:1606.04797 (squares); Sudre et al. 2017, arXiv:1707.03237 (weights in both sums).
"""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

from torch import Tensor

from segfast.models.pixel_loss import PixelLoss
from segfast.models.reductions import weight_reduce_loss
from segfast.models.region_sums import (
    RegionSums,
    counted_classes,
    pick_classes,
    region_sums,
)
from segfast.registry import MODELS


@MODELS.register_module()
class DiceLoss(PixelLoss):
    """Dice loss of every image, over all classes together or class by class.

    Args:
        use_sigmoid: probabilities by sigmoid, one problem per class; else by softmax. One channel
            always takes a sigmoid.
        activate: False if the network's outputs are probabilities already.
        reduction: of the images' losses: "mean", "sum" or "none".
        naive_dice: sums of p instead of p^2 in the denominator.
        loss_weight: factor on the result.
        ignore_index: label that counts nowhere, beside the one that `forward` names; if it is a
            class, that class's channel counts nowhere either. None for none.
        eps: keeps empty regions from dividing by 0.
        loss_name: its key among the losses.
        per_class: average over classes, so that small ones count as much as large ones.
        class_weight: one factor per class.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        activate: bool = True,
        reduction: str = "mean",
        naive_dice: bool = False,
        loss_weight: float = 1.0,
        ignore_index: int | None = 255,
        eps: float = 1e-3,
        loss_name: str = "loss_dice",
        per_class: bool = False,
        class_weight: Sequence[float] | Tensor | str | None = None,
    ) -> None:
        """Check the settings and read `class_weight`."""
        super().__init__(reduction, class_weight, loss_weight, loss_name)
        self.use_sigmoid = use_sigmoid
        self.activate = activate
        self.naive_dice = naive_dice
        self.ignore_index = ignore_index
        self.eps = eps
        self.per_class = per_class

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
        """The loss.

        Args:
            pred: (N, C, h, w) logits, as if upsampled where (h, w) is not the target's size.
            target: (N, H, W) integer; or (N, C, H, W), one map per class, soft ones too.
            weight: factor per image (N,), or per pixel (N, H, W).
            avg_factor: denominator of the mean over images.
            reduction_override: replaces `reduction` for this call.
            ignore_index: label that counts nowhere.
            align_corners: of the upsampling.

        Returns:
            A scalar, or (N,) for reduction "none". An image without a valid pixel has loss 0.

        Raises:
            LabelError: on the CPU, a label outside [0, C) that is not ignored.
        """
        reduction = self._chosen_reduction(reduction_override, avg_factor)
        factors = self._class_factors(pred)
        ignored = (ignore_index, self.ignore_index)
        per_image = weight if weight is not None and weight.dim() == 1 < target.dim() else None
        sums = region_sums(
            pred,
            target,
            activation=("sigmoid" if self.use_sigmoid else "softmax") if self.activate else None,
            pixel_weight=weight if per_image is None else None,
            ignored=ignored,
            align_corners=align_corners,
        )
        counted = counted_classes(pred.shape[1], ignored)
        factors = None if factors is None else pick_classes(factors, counted)
        loss = self._per_image(sums.of(counted), factors) * sums.is_valid
        return self.loss_weight * weight_reduce_loss(loss, per_image, reduction, avg_factor)

    def _per_image(self, sums: RegionSums, factors: Tensor | None) -> Tensor:
        """Sums (N, C) -> losses (N,)."""
        overlap, size = 2 * sums.overlap, sums.pred_square + sums.target_square
        if self.naive_dice:
            size = sums.pred + sums.target
        if self.per_class:
            loss = 1 - (overlap + self.eps) / (size + self.eps)
            return (loss if factors is None else loss * factors).mean(1)
        if factors is not None:
            overlap, size = overlap * factors, size * factors
        overlap, size = overlap.sum(1), size.sum(1)
        if self.naive_dice:
            return 1 - (overlap + self.eps) / (size + self.eps)
        return 1 - overlap / (size + 2 * self.eps)
