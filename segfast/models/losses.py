"""CrossEntropyLoss: softmax, sigmoid or mask cross-entropy with MMSegmentation's settings."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

from torch import Tensor

from segfast.errors import UserError
from segfast.models.binary_loss import binary_cross_entropy_and_counts, mask_cross_entropy
from segfast.models.pixel_loss import PixelLoss
from segfast.models.reductions import accuracy_of
from segfast.models.softmax_loss import Counts, cross_entropy_and_counts
from segfast.registry import MODELS


@MODELS.register_module()
class CrossEntropyLoss(PixelLoss):
    """Softmax or sigmoid cross-entropy of logits at any stride against full-size labels.

    What the mean divides by: see `softmax_loss` and `binary_loss`.

    Args:
        use_sigmoid: one binary problem per channel instead of a softmax over channels.
        use_mask: binary masks of single objects, see `mask_cross_entropy`.
        reduction: "mean", "sum" or "none".
        class_weight: one factor per class (softmax) or the positives' weight (sigmoid): numbers, a
            tensor, or the path of a .npy, .json or .yaml file.
        loss_weight: factor on the result.
        loss_name: its key among the losses; needs to contain "loss" to be minimised.
        avg_non_ignore: let the mean divide by the pixels that are not ignored, not by all.
        label_smoothing: in [0, 1], softmax only.
    """

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
        super().__init__(reduction, class_weight, loss_weight, loss_name)
        assert not (use_sigmoid and use_mask), "set only one of use_sigmoid and use_mask"
        if (use_sigmoid or use_mask) and label_smoothing:
            raise UserError("CrossEntropyLoss: label_smoothing needs a softmax")
        self.use_sigmoid = use_sigmoid
        self.use_mask = use_mask
        self.avg_non_ignore = avg_non_ignore
        self.label_smoothing = label_smoothing

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
        ignore_index: int | None = -100,
        *,
        align_corners: bool = False,
        **_: object,
    ) -> Tensor:
        """The loss.

        Args:
            cls_score: (N, C, h, w), (N, C, L) or (N, C) logits, any float dtype. Where (h, w) is
                not the label's size, they count as if upsampled bilinearly; softmax never holds
                the upsampled tensor.
            label: (N, H, W), (N, L) or (N,), integer; or soft labels, (N, C, H, W), (N, C, L) or
                (N, C) float. With `use_mask`, targets (N, H, W).
            weight: factor per pixel, label's shape (size 1 along dimension 1 broadcasts). With
                `use_mask`, the class (N,) of each object.
            avg_factor: denominator of the mean.
            reduction_override: replaces `reduction` for this call.
            ignore_index: label that counts as 0; None for none, which `use_mask` needs.
            align_corners: of the upsampling.

        Returns:
            A scalar, or label's shape for reduction "none". 0 when every pixel is ignored.

        Raises:
            UserError: softmax over one channel; class_weight of another length than C.
            LabelError: on the CPU, a label outside [0, C) that is not `ignore_index`.
            ValueError: reduction "sum" with `avg_factor`.
        """
        if self.use_mask:
            return self._mask_loss(
                cls_score, label, weight, avg_factor, reduction_override, ignore_index
            )
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
        ignore_index: int | None = -100,
        *,
        align_corners: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the percentage of pixels whose best class is right, from one pass.

        Arguments as `forward`.

        Returns:
            loss as `forward`; accuracy (1,) float32 in percent, 100 when every pixel is ignored.
        """
        if self.use_mask:
            raise UserError("CrossEntropyLoss: use_mask is for instance masks, not for segmentors")
        loss, (correct, valid) = self._evaluate(
            cls_score,
            label,
            weight,
            avg_factor,
            reduction_override,
            ignore_index,
            align_corners,
            with_accuracy=True,
        )
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
        ignore_index: int | None,
        align_corners: bool,
        with_accuracy: bool = False,
    ) -> tuple[Tensor, Counts]:
        """The weighted loss and the counts of correct and valid pixels."""
        reduction = self._chosen_reduction(reduction_override, avg_factor)
        ignored = -100 if ignore_index is None else ignore_index
        if not self.use_sigmoid:
            self._check_channels(logits)
            loss, counts = cross_entropy_and_counts(
                logits,
                label,
                weight,
                self._class_factors(logits),
                reduction,
                avg_factor,
                ignored,
                self.avg_non_ignore,
                label_smoothing=self.label_smoothing,
                align_corners=align_corners,
                with_accuracy=with_accuracy,
            )
            return self.loss_weight * loss, counts
        loss, counts = binary_cross_entropy_and_counts(
            logits,
            label,
            weight,
            reduction,
            avg_factor,
            self._factors,
            ignored,
            self.avg_non_ignore,
            align_corners,
            with_accuracy,
        )
        return self.loss_weight * loss, counts

    def _mask_loss(
        self,
        pred: Tensor,
        target: Tensor,
        label: Tensor | None,
        avg_factor: float | Tensor | None,
        reduction_override: str | None,
        ignore_index: int | None,
    ) -> Tensor:
        assert label is not None, "use_mask needs the objects' classes as `weight`"
        reduction = self._chosen_reduction(reduction_override, avg_factor)
        loss = mask_cross_entropy(
            pred, target, label, reduction, avg_factor, self._factors, ignore_index
        )
        return self.loss_weight * loss

    def _check_channels(self, logits: Tensor) -> None:
        if logits.shape[1] == 1:
            raise UserError(
                "CrossEntropyLoss: a softmax over one channel is always 0; set use_sigmoid=True, "
                "or give the network two output channels"
            )
