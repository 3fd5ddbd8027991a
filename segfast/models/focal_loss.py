"""FocalLoss: sigmoid cross-entropy that looks away from what is right already.

Math, per pixel and class, with t = 1 for the pixel's class and else 0, and q = p (1 - t) + (1 - p) t the probability
of the wrong answer: `(alpha t + (1 - alpha) (1 - t)) q^gamma BCE(x, t)`. For hard labels q = sigmoid(z) and BCE =
softplus(z) with z = x (1 - 2 t), computed from log q, so that no gamma >= 0 and no logit gives NaN.

Source: Lin et al. 2017, arXiv:1708.02002.
"""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from segfast.errors import UserError
from segfast.models.image_chunks import over_images
from segfast.models.pixel_loss import PixelLoss
from segfast.models.reductions import EPS
from segfast.models.resize import resize
from segfast.models.valid_labels import valid_pixels
from segfast.registry import MODELS


@MODELS.register_module()
class FocalLoss(PixelLoss):
    """Focal loss, one binary problem per class.

    Args:
        use_sigmoid: True, there is no softmax version.
        gamma: how much less a good answer counts; 0 for none.
        alpha: weight of the positives, the negatives having 1 - alpha; one number or one per class.
        reduction: "mean" (over all N C H W elements, ignored ones included), "sum" or "none".
        class_weight: one factor per class.
        loss_weight: factor on the result.
        loss_name: its key among the losses.
    """

    _alpha: Tensor

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float | Sequence[float] = 0.5,
        reduction: str = "mean",
        class_weight: Sequence[float] | Tensor | str | None = None,
        loss_weight: float = 1.0,
        loss_name: str = "loss_focal",
    ) -> None:
        """Check the settings and read `class_weight`."""
        super().__init__(reduction, class_weight, loss_weight, loss_name)
        assert use_sigmoid, "FocalLoss knows sigmoid only: leave use_sigmoid=True"
        assert gamma >= 0, f"gamma should be at least 0, got {gamma}"
        self.use_sigmoid = use_sigmoid
        self.gamma = gamma
        self.alpha = alpha
        alphas = torch.as_tensor(alpha, dtype=torch.float32).view(-1)
        self.register_buffer("_alpha", alphas, persistent=False)

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
            pred: (N, C, h, w), (N, C, L) or (N, C) logits; (h, w) counts as if upsampled where it
                is not the target's size.
            target: (N, H, W), (N, L) or (N,) integer, the one channel of C = 1 standing for class
                1; or probabilities of pred's rank.
            weight: factor per pixel, in the target's order.
            avg_factor: denominator of the mean.
            reduction_override: replaces `reduction` for this call.
            ignore_index: label that counts as 0.
            align_corners: of the upsampling.

        Returns:
            A scalar, or (N, C, ...) for reduction "none".

        Raises:
            UserError: `alpha` or `class_weight` of another length than C.
            LabelError: on the CPU, a label outside [0, C) that is not ignored.
        """
        reduction = self._chosen_reduction(reduction_override, avg_factor)
        channels = pred.shape[1]
        soft = target.dim() == pred.dim()
        if len(self._alpha) not in (1, channels):
            raise UserError(
                f"FocalLoss: alpha has {len(self._alpha)} values, but the network has {channels} "
                "output channels"
            )
        pixels = target[:, 0] if soft else target
        if weight is not None:
            weight = weight.reshape(pixels.shape)
        if not soft:
            valid = valid_pixels(target, max(channels, 2), ignore_index)
            weight = valid.float() if weight is None else weight * valid
        factors = self._class_factors(pred)
        element = partial(
            _element_loss,
            gamma=self.gamma,
            alpha=self._alpha.to(pred.device),
            factors=factors,
            align_corners=align_corners,
        )
        if reduction == "none":
            return self.loss_weight * element(pred, target, weight)
        num_pixels = pixels[0].numel()
        sums = over_images(partial(_sums, element), pred, [target, weight], num_pixels)[0]
        total = sums.sum()
        if reduction == "mean":
            average = pixels.numel() * channels if avg_factor is None else avg_factor + EPS
            total = total / average
        return self.loss_weight * total


def _sums(element: partial, pred: Tensor, target: Tensor, weight: Tensor | None) -> list[Tensor]:
    """The losses of some images, (N,)."""
    return [element(pred, target, weight).flatten(1).sum(1)]


def _element_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *,
    gamma: float,
    alpha: Tensor,
    factors: Tensor | None,
    align_corners: bool,
) -> Tensor:
    """The loss of every pixel and class, (N, C, ...)."""
    x = pred if pred.dtype == torch.float64 else pred.float()
    x = resize(x, target.shape[-2:], align_corners, repeatable=True) if x.dim() == 4 else x
    per_class = [-1, *[1] * (x.dim() - 2)]
    alpha = alpha.to(x.dtype).view(per_class)
    if target.dim() == x.dim():
        t = target.to(x.dtype)
        p = x.sigmoid()
        wrong = p * (1 - t) + (1 - p) * t
        focus = (wrong + (wrong == 0) * torch.finfo(x.dtype).tiny) ** gamma
        loss = F.binary_cross_entropy_with_logits(x, t, reduction="none") * focus
        loss = loss * (alpha * t + (1 - alpha) * (1 - t))
    else:
        first = 1 if x.shape[1] == 1 else 0
        classes = torch.arange(first, first + x.shape[1], device=x.device).view(per_class)
        is_class = target.unsqueeze(1) == classes
        z = torch.where(is_class, -x, x)
        loss = F.softplus(z) * torch.exp(-gamma * F.softplus(-z))
        loss = loss * torch.where(is_class, alpha, 1 - alpha)
    if factors is not None:
        loss = loss * factors.to(x.dtype).view(per_class)
    return loss if weight is None else loss * weight.unsqueeze(1)
