"""MMSegmentation: our preprocessor, losses, decode heads and IoU under names in its registries.

A config reaches them with `custom_imports = dict(imports=["segfast.integrations.mmseg"])` and other `type` strings:

    SegDataPreProcessor    -> SegfastSegDataPreProcessor    normalise, pad and stack in one kernel
    CrossEntropyLoss       -> SegfastCrossEntropyLoss       loss and acc_seg in one pass
    FCNHead, PSPHead, ...  -> SegfastFCNHead, ...           that loss at the head's own stride, no resized logits
    IoUMetric              -> SegfastIoUMetric              exact int64 counts, no waiting before evaluate

Values are MMSegmentation's, rounding apart. A fused head needs SegfastCrossEntropyLoss to have anything to fuse; other
losses, and samplers, get resized logits as ever. MixUp in `batch_augments` needs `num_classes` beside heads that are
not fused: those do not look for a second label map.
"""

# SPDX-License-Identifier: Apache-2.0
import types
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from segfast import evaluation, models, ops
from segfast.errors import LabelError, UserError
from segfast.integrations import missing
from segfast.models.mixed_labels import over_labels
from segfast.models.named_losses import name_bad_label, named_losses, stack_labels
from segfast.models.resize import resize

try:
    from mmengine.evaluator import BaseMetric as MMBaseMetric
    from mmengine.logging import print_log
    from mmengine.model import BaseDataPreprocessor as MMBaseDataPreprocessor
    from mmengine.structures import BaseDataElement as MMBaseDataElement
    from mmseg.models import decode_heads
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.registry import METRICS, MODELS
    from mmseg.structures import SegDataSample
except ImportError as error:
    raise missing("mmengine mmcv mmsegmentation", "mmseg", error) from error


@MODELS.register_module(force=True)
class SegfastSegDataPreProcessor(models.SegDataPreProcessor, MMBaseDataPreprocessor):
    """`segfast.models.SegDataPreProcessor` for MMSegmentation's models and samples; arguments as there."""

    def cast_data(self, data: Any) -> Any:
        """As `BaseDataPreprocessor.cast_data`; MMEngine's elements are rebuilt as ours are."""
        if isinstance(data, MMBaseDataElement):
            return data.to(self.device, non_blocking=self._non_blocking)
        return super().cast_data(data)

    def forward(self, data: Any, training: bool = False) -> dict[str, Any]:
        """As `SegDataPreProcessor.forward`; samples that it had to make are MMSegmentation's."""
        batch = super().forward(data, training)
        samples = batch["data_samples"]
        if samples is not None and data.get("data_samples") is None:
            batch["data_samples"] = [SegDataSample(metainfo=sample.metainfo) for sample in samples]
        return batch


class FusedHead:
    """Mixin for a `BaseDecodeHead` with the stock `loss_by_feat`: place it in front, or call `fused_head`."""

    loss_decode: nn.Module
    sampler: Any
    ignore_index: int
    align_corners: bool

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Losses and accuracy; Segfast's cross-entropy reads the logits at the stride they come in.

        Args:
            seg_logits: (N, C, h, w).
            batch_data_samples: N samples with `gt_sem_seg`, data (1, H, W) integer.

        Returns:
            The losses by name, equal names added up, and "acc_seg" (1,) in percent.

        Raises:
            LabelError: on the CPU, a label is out of range; names the image.
        """
        labels = stack_labels(batch_data_samples).squeeze(1)
        losses_of = partial(self._named_losses, seg_logits)
        try:
            losses, acc_seg = over_labels(losses_of, labels, batch_data_samples)
        except LabelError as error:
            channels, ignored = seg_logits.shape[1], self.ignore_index
            raise name_bad_label(error, channels, batch_data_samples, ignored) from None
        return {**losses, "acc_seg": acc_seg}

    def _named_losses(self, logits: Tensor, label: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Losses by name and the accuracy of (N, C, h, w) logits and (N, H, W) labels."""
        weight = None
        if self.sampler is not None:
            full = resize(logits, label.shape[-2:], self.align_corners)
            weight = self.sampler.sample(full, label.unsqueeze(1))
        several = isinstance(self.loss_decode, nn.ModuleList)
        return named_losses(
            self.loss_decode if several else [self.loss_decode],  # type: ignore[arg-type]
            logits,
            label,
            weight=weight,
            ignore_index=self.ignore_index,
            align_corners=self.align_corners,
        )


def fused_head(head: type) -> type:
    """A subclass of a decode head whose loss is fused, called "Segfast" + the head's name.

    Args:
        head: a `BaseDecodeHead` that keeps the stock `loss_by_feat`. Register what comes back:
            `MODELS.register_module(module=fused_head(MyHead))`.

    Raises:
        UserError: the head has a loss of its own, which a fused one would not compute.
    """
    if not issubclass(head, BaseDecodeHead) or not _has_stock_loss(head):
        raise UserError(
            f"fused_head: {head.__name__} is no BaseDecodeHead with the stock loss_by_feat (give it "
            "SegfastCrossEntropyLoss as loss_decode instead)"
        )
    body = {"__module__": __name__, "__doc__": f"`{head.__name__}` with the loss of `FusedHead`."}
    return types.new_class(
        f"Segfast{head.__name__}", (FusedHead, head), {}, lambda n: n.update(body)
    )


def _has_stock_loss(head: type) -> bool:
    return getattr(head, "loss_by_feat", None) is BaseDecodeHead.loss_by_feat


def _register_heads() -> dict[str, type]:
    heads = [getattr(decode_heads, name) for name in decode_heads.__all__]
    fused = [fused_head(head) for head in heads if _has_stock_loss(head)]
    for head in fused:
        MODELS.register_module(module=head, force=True)
    return {head.__name__: head for head in fused}


@METRICS.register_module(force=True)
class SegfastIoUMetric(evaluation.IoUMetric, MMBaseMetric):
    """`segfast.evaluation.IoUMetric` for MMEngine's Evaluator; arguments as there."""

    def evaluate(self, size: int) -> dict:
        """As `BaseMetric.evaluate`; raises for bad labels that CUDA kernels met since the last time.

        Raises:
            LabelError: labels, in training or here, out of range.
        """
        ops.check_labels()
        return super().evaluate(size)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """As `IoUMetric.compute_metrics`; the table per class goes to MMEngine's log."""
        metrics = super().compute_metrics(results)
        if metrics:
            print_log(f"per class results:\n{self.last_table}", logger="current")
        return metrics


MODELS.register_module(name="SegfastCrossEntropyLoss", module=models.CrossEntropyLoss, force=True)
globals().update(_register_heads())
