"""OHEMPixelSampler: trains on the hard pixels of a batch only."""

# SPDX-License-Identifier: Apache-2.0
import math
from typing import Any

import torch
from torch import Tensor, nn

from segfast import ops
from segfast.errors import UserError
from segfast.models.binary_loss import binary_cross_entropy
from segfast.models.named_losses import accepted_options
from segfast.models.pixel_loss import PixelLoss
from segfast.models.resize import resize
from segfast.registry import MODELS


@MODELS.register_module()
class OHEMPixelSampler:
    """Keeps the pixels with a low probability of their true class, or with a high loss.

    With K = min_kept * N pixels of a batch of N images:

    - `thresh` given: keep pixels with p < max(thresh, the (K+1)-th smallest p, or the largest there
      is), p being the probability of the true class. Compared as losses, `-log p`, which resolve
      probabilities close to 1.
    - `thresh` None: keep the K pixels with the largest sum of the head's losses; the first of equals.

    Nothing here waits for the device, and the logits are not resized for cross-entropy.

    Args:
        context: the decode head, for its `ignore_index`, `loss_decode` and `align_corners`.
        thresh: probability below which a pixel is hard.
        min_kept: how many pixels per image to keep at least.
    """

    def __init__(
        self, context: nn.Module, thresh: float | None = None, min_kept: int = 100000
    ) -> None:
        """Check the settings."""
        assert min_kept > 1, f"min_kept should be more than 1, got {min_kept}"
        assert thresh is None or 0 < thresh <= 1, f"thresh is a probability, got {thresh}"
        # Kept out of nn.Module's attributes: the head owns the sampler, not the other way round.
        self.context: Any = context
        self.thresh = thresh
        self.min_kept = min_kept

    def sample(self, seg_logit: Tensor, seg_label: Tensor) -> Tensor:
        """Choose pixels.

        Args:
            seg_logit: (N, C, H, W).
            seg_label: (N, 1, H, W) integer.

        Returns:
            (N, H, W) float32: 1 where the pixel counts, else 0.
        """
        assert seg_logit.shape[2:] == seg_label.shape[2:], (
            f"expected logits and labels of one size, got {tuple(seg_logit.shape[2:])} and "
            f"{tuple(seg_label.shape[2:])}"
        )
        assert seg_label.shape[1] == 1, f"expected label (N, 1, H, W), got {tuple(seg_label.shape)}"
        return self.weigh(seg_logit, seg_label.squeeze(1))

    @torch.no_grad()
    def weigh(self, logits: Tensor, label: Tensor) -> Tensor:
        """As `sample`, with logits (N, C, h, w) of any size and label (N, H, W)."""
        assert label.dim() == 3, f"a sampler needs one class per pixel, got {tuple(label.shape)}"
        valid = (label != self.context.ignore_index).flatten()
        kept = self.min_kept * label.shape[0]
        if self.thresh is None:
            losses = self._head_losses(logits, label).flatten().float()
            order = losses.masked_fill(~valid, -math.inf).sort(descending=True, stable=True)[1]
            hard = torch.zeros_like(valid)
            hard[order[:kept]] = True
        else:
            losses = self._true_class_loss(logits, label).flatten().float()
            losses = losses.masked_fill(~valid, -math.inf)
            ranked = losses.sort(descending=True)[0]
            # Ignored pixels come last: where there are no more than `kept` others, the easiest of
            # those is the bound, as for `kept` pixels the next one is.
            last = (valid.sum() - 1).clamp(min=0, max=kept)
            hard = losses > ranked.index_select(0, last.view(1)).clamp(max=-math.log(self.thresh))
        return (hard & valid).view(label.shape).float()

    def _true_class_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """-log p of every pixel's class (N, H, W)."""
        ignore_index, corners = self.context.ignore_index, self.context.align_corners
        if logits.shape[1] == 1:
            return binary_cross_entropy(
                logits, label, None, "none", None, None, ignore_index, False, corners
            )
        loss: Any = ops.upsample_cross_entropy(
            logits, label, reduction="none", ignore_index=ignore_index, align_corners=corners
        )
        return loss

    def _head_losses(self, logits: Tensor, label: Tensor) -> Tensor:
        """The sum of the head's losses of every pixel (N, H, W)."""
        losses = self.context.loss_decode
        corners = self.context.align_corners
        total: Any = 0
        for module in losses if isinstance(losses, nn.ModuleList) else [losses]:
            options = {"ignore_index": self.context.ignore_index, "reduction_override": "none"}
            if isinstance(module, PixelLoss):
                value = module(logits, label, align_corners=corners, **options)
            else:
                full = resize(logits, label.shape[-2:], corners)
                value = module(full, label.long(), **accepted_options(module, options))
            value = value.sum(1) if value.dim() == 4 else value
            if value.shape != label.shape:
                raise UserError(
                    f"OHEMPixelSampler: {type(module).__name__} gives {tuple(value.shape)} with "
                    f"reduction 'none', not one loss per pixel {tuple(label.shape)} (set thresh to "
                    "choose pixels by probability instead)"
                )
            total = total + value
        return total
