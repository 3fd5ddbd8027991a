"""CrossEntropyLoss with MMSegmentation's mean rules, on the fused operators; accuracy; reductions.

Math, with l_p a pixel's cross-entropy (0 where ignored), w its class weight, s_p its own weight:
`sum_p s_p * w[y_p] * l_p / (denominator + eps)`. The denominator of reduction "mean" is

| avg_factor | class_weight | avg_non_ignore | denominator |
|---|---|---|---|
| given | any | any | avg_factor |
| None | None | False (default) | the number of pixels, ignored ones included |
| None | None | True | the number of pixels that are not ignored |
| None | given | False | the sum of w[y_p]; an ignored label that names a class counts too |
| None | given | True | the sum of w[y_p] over pixels that are not ignored |
"""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segfast import ops
from segfast.errors import UserError
from segfast.models.binary_loss import binary_cross_entropy, class_counts
from segfast.models.reductions import EPS, accuracy_of, load_class_weight, match_weight
from segfast.registry import MODELS

Counts = tuple[Tensor | None, Tensor | None]  # correct and valid pixels, 0-d int64


@MODELS.register_module()
class CrossEntropyLoss(nn.Module):
    """Softmax or sigmoid cross-entropy of logits at any stride against full-size labels.

    Args:
        use_sigmoid: one binary problem per channel instead of a softmax over channels.
        use_mask: not supported; instance masks are outside semantic segmentation.
        reduction: "mean", "sum" or "none".
        class_weight: one factor per class (softmax) or the positives' weight (sigmoid): numbers, a
            tensor, or the path of a .npy, .json or .yaml file.
        loss_weight: factor on the result.
        loss_name: its key among the losses; needs to contain "loss" to be minimised.
        avg_non_ignore: let the mean divide by the pixels that are not ignored, not by all.
        label_smoothing: in [0, 1], softmax only.
    """

    _factors: Tensor | None

    def __init__(
        self,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        reduction: str = "mean",
        class_weight: Sequence[float] | Tensor | str | None = None,
        loss_weight: float = 1.0,
        loss_name: str = "loss_ce",
        avg_non_ignore: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        """Check the settings and read `class_weight`."""
        super().__init__()
        assert not (use_sigmoid and use_mask), "set only one of use_sigmoid and use_mask"
        if use_mask:
            raise UserError("CrossEntropyLoss: use_mask is not supported, leave it out")
        if reduction not in ("mean", "sum", "none"):
            raise UserError(
                f"CrossEntropyLoss: reduction is 'mean', 'sum' or 'none', not {reduction!r}"
            )
        if use_sigmoid and label_smoothing:
            raise UserError("CrossEntropyLoss: label_smoothing needs use_sigmoid=False")
        self.use_sigmoid = use_sigmoid
        self.use_mask = use_mask
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.avg_non_ignore = avg_non_ignore
        self.label_smoothing = label_smoothing
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

    def extra_repr(self) -> str:
        """Show the setting that changes the mean."""
        return f"avg_non_ignore={self.avg_non_ignore}"

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        ignore_index: int = -100,
        *,
        align_corners: bool = False,
        **_: object,
    ) -> Tensor:
        """The loss.

        Args:
            cls_score: (N, C, h, w), (N, C, L) or (N, C) logits, any float dtype. Where (h, w) is
                not the label's size, they count as if upsampled bilinearly; softmax never holds
                the upsampled tensor.
            label: (N, H, W), (N, L) or (N,), integer. With sigmoid also `cls_score`'s shape.
            weight: factor per pixel, label's shape (size 1 along dimension 1 broadcasts).
            avg_factor: denominator of the mean.
            reduction_override: replaces `reduction` for this call.
            ignore_index: label that counts as 0.
            align_corners: of the upsampling.

        Returns:
            A scalar, or label's shape for reduction "none". 0 when every pixel is ignored.

        Raises:
            UserError: softmax over one channel; class_weight of another length than C.
            LabelError: on the CPU, a label outside [0, C) that is not `ignore_index`.
            ValueError: reduction "sum" with `avg_factor`.
        """
        return self._evaluate(
            cls_score, label, weight, avg_factor, reduction_override, ignore_index, align_corners
        )[0]

    def loss_and_accuracy(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        ignore_index: int = -100,
        *,
        align_corners: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the percentage of pixels whose best class is right, from one pass.

        Arguments as `forward`.

        Returns:
            loss as `forward`; accuracy (1,) float32 in percent, 100 when every pixel is ignored.
        """
        loss, counts = self._evaluate(
            cls_score,
            label,
            weight,
            avg_factor,
            reduction_override,
            ignore_index,
            align_corners,
            with_accuracy=True,
        )
        correct, valid = counts
        assert correct is not None
        assert valid is not None
        return loss, accuracy_of(correct, valid)

    def _evaluate(
        self,
        logits: Tensor,
        label: Tensor,
        weight: Tensor | None,
        avg_factor: float | Tensor | None,
        reduction_override: str | None,
        ignore_index: int,
        align_corners: bool,
        with_accuracy: bool = False,
    ) -> tuple[Tensor, Counts]:
        """The weighted loss and the counts of correct and valid pixels."""
        reduction = reduction_override or self.reduction
        assert reduction in ("mean", "sum", "none"), f"unknown reduction {reduction!r}"
        if reduction == "sum" and avg_factor is not None:
            raise ValueError('avg_factor can not be used with reduction="sum"')
        evaluate = self._sigmoid if self.use_sigmoid else self._softmax
        loss, counts = evaluate(
            logits, label, weight, avg_factor, reduction, ignore_index, align_corners, with_accuracy
        )
        return self.loss_weight * loss, counts

    def _sigmoid(
        self,
        logits: Tensor,
        label: Tensor,
        weight: Tensor | None,
        avg_factor: float | Tensor | None,
        reduction: str,
        ignore_index: int,
        align_corners: bool,
        with_accuracy: bool,
    ) -> tuple[Tensor, Counts]:
        loss = binary_cross_entropy(
            logits,
            label,
            weight,
            reduction,
            avg_factor,
            self._factors,
            ignore_index,
            self.avg_non_ignore,
            align_corners,
        )
        if not with_accuracy:
            return loss, (None, None)
        return loss, class_counts(logits, label, ignore_index, align_corners)

    def _softmax(
        self,
        logits: Tensor,
        label: Tensor,
        weight: Tensor | None,
        avg_factor: float | Tensor | None,
        reduction: str,
        ignore_index: int,
        align_corners: bool,
        with_accuracy: bool,
    ) -> tuple[Tensor, Counts]:
        self._check_channels(logits)
        options: dict[str, Any] = {
            "weight": None if self._factors is None else self._factors.to(logits.device),
            "pixel_weight": None if weight is None else match_weight(weight, label),
            "ignore_index": ignore_index,
            "label_smoothing": self.label_smoothing,
        }
        per_pixel: Callable = ops.cross_entropy
        summed: Callable = ops.cross_entropy_terms
        if logits.dim() == 4 and label.dim() == 3 and logits.shape[2:] != label.shape[1:]:
            per_pixel, summed = ops.upsample_cross_entropy, ops.upsample_cross_entropy_terms
            options["align_corners"] = align_corners
        if reduction == "none":
            loss = per_pixel(logits, label, reduction="none", **options)
            if not with_accuracy:
                return loss, (None, None)
        terms = summed(logits, label, with_accuracy=with_accuracy, **options)
        if reduction == "sum":
            loss = terms.loss_sum
        elif reduction == "mean":
            loss = terms.loss_sum / self._denominator(terms, label, avg_factor, ignore_index)
        return loss, (terms.num_correct, terms.num_valid)

    def _denominator(
        self,
        terms: ops.CrossEntropyTerms,
        label: Tensor,
        avg_factor: float | Tensor | None,
        ignore_index: int,
    ) -> float | Tensor:
        if avg_factor is not None:
            return avg_factor + EPS
        if self.avg_non_ignore:
            return terms.weight_sum + EPS
        if self._factors is None:
            return label.numel() + EPS
        total = terms.weight_sum
        if 0 <= ignore_index < len(self._factors):
            ignored = (label == ignore_index).sum()
            total = total + ignored * self._factors.to(label.device)[ignore_index]
        return total + EPS

    def _check_channels(self, logits: Tensor) -> None:
        channels = logits.shape[1]
        if channels == 1:
            raise UserError(
                "CrossEntropyLoss: a softmax over one channel is always 0; set use_sigmoid=True, "
                "or give the network two output channels"
            )
        if self._factors is not None and tuple(self._factors.shape) != (channels,):
            raise UserError(
                f"CrossEntropyLoss: class_weight has shape {tuple(self._factors.shape)}, but the "
                f"network has {channels} output channels"
            )
