"""Losses between a predicted and a true image, and between a discriminator and what it should say."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segfast.registry import MODELS

_EPS = 1e-12


class _ImageLoss(nn.Module):
    """A loss per element, weighted and reduced.

    Args:
        loss_weight: factor of the result.
        reduction: "none", "mean" or "sum". With a `weight` the mean is over the weights.
        sample_wise: with a `weight`, the mean of each sample's mean.
    """

    def __init__(
        self, loss_weight: float = 1.0, reduction: str = "mean", sample_wise: bool = False
    ) -> None:
        """Check the settings."""
        super().__init__()
        if reduction not in ("none", "mean", "sum"):
            raise ValueError(f"expected reduction 'none', 'mean' or 'sum', got {reduction!r}")
        self.loss_weight, self.reduction, self.sample_wise = loss_weight, reduction, sample_wise

    def elements(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss of every element."""
        raise NotImplementedError

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss.

        Args:
            pred: (N, C, H, W).
            target: (N, C, H, W).
            weight: (N, C, H, W) or (N, 1, H, W), or None.
        """
        loss = self.elements(pred, target)
        if weight is not None:
            assert weight.ndim == loss.ndim, (
                f"expected weight of rank {loss.ndim}, got {weight.ndim}"
            )
            loss = loss * weight
        if self.reduction == "none":
            return self.loss_weight * loss
        if self.reduction == "sum" or weight is None:
            return self.loss_weight * (loss.sum() if self.reduction == "sum" else loss.mean())
        weight = weight.expand_as(loss)
        if not self.sample_wise:
            return self.loss_weight * loss.sum() / (weight.sum() + _EPS)
        per_sample = loss.flatten(1).sum(1) / (weight.flatten(1).sum(1) + _EPS)
        return self.loss_weight * per_sample.mean()


@MODELS.register_module()
class L1Loss(_ImageLoss):
    """Mean absolute difference; arguments of `forward` and the constructor: pixel_loss's."""

    def elements(self, pred: Tensor, target: Tensor) -> Tensor:
        """|pred - target|."""
        return F.l1_loss(pred, target, reduction="none")


@MODELS.register_module()
class MSELoss(_ImageLoss):
    """Mean squared difference."""

    def elements(self, pred: Tensor, target: Tensor) -> Tensor:
        """(pred - target)^2."""
        return F.mse_loss(pred, target, reduction="none")


@MODELS.register_module()
class CharbonnierLoss(_ImageLoss):
    """A smooth absolute difference: sqrt((pred - target)^2 + eps).

    Args:
        loss_weight: factor of the result.
        reduction: "none", "mean" or "sum".
        sample_wise: with a `weight`, the mean of each sample's mean.
        eps: curvature near zero.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        reduction: str = "mean",
        sample_wise: bool = False,
        eps: float = 1e-12,
    ) -> None:
        """Check the settings."""
        super().__init__(loss_weight, reduction, sample_wise)
        self.eps = eps

    def elements(self, pred: Tensor, target: Tensor) -> Tensor:
        """sqrt((pred - target)^2 + eps)."""
        return ((pred - target).square() + self.eps).sqrt()


@MODELS.register_module()
class GANLoss(nn.Module):
    """What a discriminator's scores cost, for itself and for the generator.

    Args:
        gan_type: "vanilla" (binary cross-entropy on logits), "lsgan" (squares), "l1", "wgan" (the scores' mean),
            "wgan-logistic-ns" (softplus) or "hinge".
        real_label_val: target for real images; vanilla, lsgan and l1 only.
        fake_label_val: target for generated images; the same.
        loss_weight: factor of the generator's loss; the discriminator's has none.
    """

    def __init__(
        self,
        gan_type: str,
        real_label_val: float = 1.0,
        fake_label_val: float = 0.0,
        loss_weight: float = 1.0,
    ) -> None:
        """Check the type."""
        super().__init__()
        known = (*_TARGETED, "wgan", "wgan-logistic-ns", "hinge")
        if gan_type not in known:
            raise ValueError(f"expected gan_type as one of {', '.join(known)}, got {gan_type!r}")
        self.gan_type, self.loss_weight = gan_type, loss_weight
        self.real_label_val, self.fake_label_val = real_label_val, fake_label_val

    def forward(self, scores: Tensor, target_is_real: bool, is_disc: bool = False) -> Tensor:
        """The loss.

        Args:
            scores: the discriminator's, any shape, before a sigmoid.
            target_is_real: whether they should say "real".
            is_disc: the discriminator is trained, otherwise the generator.

        Returns:
            0-d.
        """
        sign = -1.0 if target_is_real else 1.0
        if self.gan_type in _TARGETED:
            target = self.real_label_val if target_is_real else self.fake_label_val
            loss = _TARGETED[self.gan_type](scores, torch.full_like(scores, target))
        elif self.gan_type == "wgan":
            loss = sign * scores.mean()
        elif self.gan_type == "wgan-logistic-ns":
            loss = F.softplus(sign * scores).mean()
        elif is_disc:
            loss = F.relu(1 + sign * scores).mean()
        else:  # hinge: the generator's is linear
            loss = -scores.mean()
        return loss if is_disc else loss * self.loss_weight


_TARGETED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "vanilla": F.binary_cross_entropy_with_logits,
    "lsgan": F.mse_loss,
    "l1": F.l1_loss,
}
