"""LovaszLoss: the convex extension of 1 - IoU, of softmax probabilities or of hinges.

Math, for one class: the pixels' errors (|t - p| for softmax, max(0, 1 - x (2 t - 1)) for the hinge) in falling order,
each times what its pixel adds to the Jaccard loss of the pixels passed. With I the class's pixels not yet passed, and
U the class's pixels plus the others passed, that is 1 / U for a pixel of the class and I / (U (U - 1)) for another:
exact, where the difference of two nearly equal Jaccard losses is not.

Ignored pixels have error 0 and come last, so nothing is selected and nobody waits for the device.

Source: Berman et al. 2018, arXiv:1705.08790, algorithm 1.
"""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

import torch
from torch import Tensor

from segfast.errors import UserError
from segfast.models.pixel_loss import PixelLoss
from segfast.models.reductions import weight_reduce_loss
from segfast.models.resize import resize
from segfast.models.valid_labels import valid_pixels
from segfast.registry import MODELS


@MODELS.register_module()
class LovaszLoss(PixelLoss):
    """Lovasz-softmax, or Lovasz hinge for one channel; of the batch or of each image.

    Args:
        loss_type: "multi_class" (softmax) or "binary" (hinge, one channel, labels 0 and 1).
        classes: the classes to average over: "present" in the labels, "all", or a list of them.
        per_image: one loss per image, reduced by `reduction`; else one for the whole batch.
        reduction: of the images' losses: "mean", "sum" or "none".
        class_weight: one factor per class, on its term of the average.
        loss_weight: factor on the result.
        loss_name: its key among the losses.
    """

    def __init__(
        self,
        loss_type: str = "multi_class",
        classes: str | Sequence[int] = "present",
        per_image: bool = False,
        reduction: str = "mean",
        class_weight: Sequence[float] | Tensor | str | None = None,
        loss_weight: float = 1.0,
        loss_name: str = "loss_lovasz",
    ) -> None:
        """Check the settings and read `class_weight`."""
        super().__init__(reduction, class_weight, loss_weight, loss_name)
        assert loss_type in ("binary", "multi_class"), (
            f"loss_type should be 'binary' or 'multi_class', got {loss_type!r}"
        )
        named = classes in ("all", "present")
        assert named or all(isinstance(c, int) for c in classes), (
            f"classes should be 'present', 'all' or a list of classes, got {classes!r}"
        )
        self.loss_type = loss_type
        self.classes = classes
        self.per_image = per_image

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
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
            cls_score: (N, C, h, w) logits, upsampled bilinearly where (h, w) is not the label's
                size; also (N, H, W) for "binary".
            label: (N, H, W) integer.
            weight: (N, H, W); pixels with weight 0 are left out, other values do not matter.
            avg_factor: denominator of the mean over images, with `per_image`.
            reduction_override: replaces `reduction` for this call.
            ignore_index: label that counts nowhere.
            align_corners: of the upsampling.

        Returns:
            A scalar; (N,) for `per_image` with reduction "none". 0 where no pixel is valid.

        Raises:
            UserError: the number of channels does not fit `loss_type` or `classes`.
            LabelError: on the CPU, a label outside [0, C) that is not ignored.
        """
        reduction = self._chosen_reduction(reduction_override, avg_factor)
        if label.is_floating_point():
            raise UserError("LovaszLoss: soft labels have no Lovasz loss, give it class indices")
        logits = cls_score if cls_score.dtype == torch.float64 else cls_score.float()
        logits = logits.unsqueeze(1) if logits.dim() == label.dim() else logits
        self._check_channels(logits.shape[1])
        if logits.dim() == 4:
            logits = resize(logits, label.shape[-2:], align_corners, repeatable=True)
        channels = logits.shape[1]
        valid = valid_pixels(label, max(channels, 2), ignore_index)
        valid = valid if weight is None else valid & (weight != 0)
        scores = logits if self.loss_type == "binary" else logits.softmax(1)
        scores = scores.flatten(2)
        label, valid = label.flatten(1), valid.flatten(1)
        if self.per_image:
            losses = [self._flat(*image) for image in zip(scores, label, valid, strict=True)]
            loss = weight_reduce_loss(torch.stack(losses), None, reduction, avg_factor)
        else:
            pixels = scores.transpose(0, 1).flatten(1)
            loss = self._flat(pixels, label.flatten(), valid.flatten())
        return self.loss_weight * loss

    def _flat(self, scores: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """Scores (C, P), labels and validity (P,) -> the average over classes, a scalar."""
        if self.loss_type == "binary":
            return _class_loss(scores[0], (label == 1) & valid, valid, hinge=True)[0]
        channels = len(scores)
        classes = range(channels) if isinstance(self.classes, str) else self.classes
        factors = self._class_factors(scores.unsqueeze(0))
        losses, present = [], []
        for c in classes:
            loss, count = _class_loss(scores[c], (label == c) & valid, valid, hinge=False)
            losses.append(loss if factors is None else loss * factors[c])
            present.append(count > 0 if self.classes == "present" else valid.any())
        counts = torch.stack(present)
        return (torch.stack(losses) * counts).sum() / counts.sum().clamp(min=1)

    def _check_channels(self, channels: int) -> None:
        if (self.loss_type == "binary") != (channels == 1):
            raise UserError(
                f"LovaszLoss: loss_type {self.loss_type!r} does not fit {channels} output "
                "channel(s) ('binary' is for one channel, 'multi_class' for more)"
            )
        if not isinstance(self.classes, str) and not all(0 <= c < channels for c in self.classes):
            raise UserError(
                f"LovaszLoss: classes {list(self.classes)} do not all lie in [0, {channels})"
            )


def _class_loss(
    score: Tensor, is_class: Tensor, valid: Tensor, *, hinge: bool
) -> tuple[Tensor, Tensor]:
    """The loss of one class, and its number of pixels; scores, membership and validity are (P,)."""
    sign = is_class.to(score.dtype) * 2 - 1
    with torch.no_grad():
        error = 1 - score * sign if hinge else torch.where(is_class, 1 - score, score)
        ranked, order = error.masked_fill(~valid, -torch.inf).sort(descending=True, stable=True)
        price, count = _jaccard_steps(is_class[order], score.dtype)
        value = (ranked.clamp(min=0) * price).sum()
        slope = torch.empty_like(price).scatter_(0, order, price * (ranked > 0)) * -sign
    # The value is exact as summed; the gradient of each score is its slope. (x - x is 0.)
    linear = (score * slope).sum()
    return value + (linear - linear.detach()), count


def _jaccard_steps(is_class: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What each pixel, in falling order of error, adds to the Jaccard loss; and the class's pixels."""
    passed = is_class.cumsum(0)  # int64: exact for any number of pixels
    count = passed[-1]
    place = torch.arange(1, len(is_class) + 1, device=is_class.device)
    union = (count + place - passed).to(dtype)
    left = (count - passed).to(dtype)
    steps = torch.where(is_class, 1 / union, left / (union * (union - 1).clamp(min=1)))
    steps[0] = torch.where(count == 0, torch.ones_like(union[0]), steps[0])  # an absent class
    return steps, count
