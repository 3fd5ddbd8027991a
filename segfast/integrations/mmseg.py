"""MMSegmentation: our preprocessor, losses, decode heads and IoU under names in its registries.

A config reaches them with `custom_imports = dict(imports=["segfast.integrations.mmseg"])` and other `type` strings:

    SegDataPreProcessor    -> SegfastSegDataPreProcessor    normalise, pad and stack in one kernel
    CrossEntropyLoss, ...  -> SegfastCrossEntropyLoss, ...  loss, acc_seg in one pass; Dice, Focal, Lovasz, Tversky too
    FCNHead, PSPHead, ...  -> SegfastFCNHead, ...           those losses at the head's own stride, no resized logits
    OHEMPixelSampler       -> SegfastOHEMPixelSampler       hard pixels, without resized logits
    EncoderDecoder         -> SegfastEncoderDecoder         validates without resized logits
    IoUMetric              -> SegfastIoUMetric              exact int64 counts, no waiting before evaluate

Values are those of `segfast.models`: MMSegmentation's, but for the differences that docs/architecture.md lists. A fused
head needs a Segfast loss to have anything to fuse; other losses, and samplers, get resized logits as ever. MixUp in
`batch_augments` needs `num_classes` beside heads that are not fused: those do not look for a second label map.
"""

# SPDX-License-Identifier: Apache-2.0
import types
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segfast import evaluation, models, ops
from segfast.errors import UserError
from segfast.integrations import missing

try:
    from mmengine.evaluator import BaseMetric as MMBaseMetric
    from mmengine.logging import print_log
    from mmengine.model import BaseDataPreprocessor as MMBaseDataPreprocessor
    from mmengine.structures import BaseDataElement as MMBaseDataElement
    from mmengine.structures import PixelData
    from mmseg.models import EncoderDecoder, decode_heads
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.registry import METRICS, MODELS, TASK_UTILS
    from mmseg.structures import SegDataSample
except ImportError as error:
    raise missing("mmengine mmcv mmsegmentation", "mmseg", error) from error


@MODELS.register_module(force=True)
class SegfastSegDataPreProcessor(models.SegDataPreProcessor, MMBaseDataPreprocessor):
    """`segfast.models.SegDataPreProcessor` for MMSegmentation's models and samples; arguments as there."""

    def stage(self, data: Any) -> Any:
        """As `BaseDataPreprocessor.stage`; what MMEngine's elements hold travels along."""
        return super().stage(_opened(data))

    def cast_data(self, data: Any) -> Any:
        """As `BaseDataPreprocessor.cast_data`; MMEngine's elements are rebuilt as ours are."""
        if isinstance(data, MMBaseDataElement):
            return data.new(**{name: self._cast_field(value) for name, value in data.items()})
        return super().cast_data(data)

    def _cast_field(self, value: Any) -> Any:
        if isinstance(value, MMBaseDataElement):
            return self.cast_data(value)
        return super()._cast_field(value)

    def forward(self, data: Any, training: bool = False) -> dict[str, Any]:
        """As `SegDataPreProcessor.forward`; samples that it had to make are MMSegmentation's."""
        batch = super().forward(data, training)
        samples = batch["data_samples"]
        if samples is not None and data.get("data_samples") is None:
            batch["data_samples"] = [SegDataSample(metainfo=sample.metainfo) for sample in samples]
        return batch


def _opened(data: Any) -> Any:
    """The same structure with the fields of MMEngine's elements in the elements' places."""
    if isinstance(data, MMBaseDataElement):
        return [_opened(value) for value in data.values() if not isinstance(value, (list, tuple))]
    if isinstance(data, Mapping):
        return {key: _opened(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_opened(value) for value in data]
    return data


@MODELS.register_module(force=True)
class SegfastEncoderDecoder(EncoderDecoder):
    """`EncoderDecoder` that decides classes while resizing where nobody asked for logits.

    `test_cfg=dict(keep_logits=...)` is True, False, or None (the default) for everywhere but in `val_step`. Full-size
    logits are made where samples keep them, for sliding windows, for one output channel, and by heads with a
    `predict_by_feat` of their own.
    """

    _validating = False
    keep_logits = models.BaseSegmentor.keep_logits
    _decide = models.BaseSegmentor._decide
    _resize = models.BaseSegmentor._resize

    def val_step(self, data: Any) -> Any:
        """As `BaseModel.val_step`; samples carry logits only with keep_logits=True."""
        self._validating = True
        try:
            return super().val_step(data)
        finally:
            self._validating = False

    def predict(self, inputs: Tensor, data_samples: Any = None) -> Any:
        """As `EncoderDecoder.predict`.

        Args:
            inputs: (N, C, H, W).
            data_samples: N samples, which receive `pred_sem_seg`, (1, h, w) int64 at their `ori_shape`, and
                `seg_logits` where they are kept.
        """
        if data_samples is None or self.keep_logits or not self._only_resizes():
            return super().predict(inputs, data_samples)
        for sample, logits in zip(data_samples, self._forward(inputs).split(1), strict=True):
            pred = self._decide(logits, inputs.shape[2:], sample.metainfo)
            sample.set_data({"pred_sem_seg": PixelData(data=pred)})
        return data_samples

    def _only_resizes(self) -> bool:
        head = type(self.decode_head)
        stock = all(
            getattr(head, name) is getattr(BaseDecodeHead, name)
            for name in ("predict", "predict_by_feat")
        )
        is_whole = (self.test_cfg or {}).get("mode", "whole") == "whole"
        return stock and is_whole and self.out_channels > 1


class FusedHead:
    """Mixin for a `BaseDecodeHead` with the stock `loss_by_feat`: place it in front, or call `fused_head`.

    Its `loss_by_feat` is that of `segfast.models.BaseDecodeHead`: one pass from the logits' own stride to the loss and
    acc_seg.
    """

    loss_by_feat = models.BaseDecodeHead.loss_by_feat
    _named_losses = models.BaseDecodeHead._named_losses
    _pixel_weight = models.BaseDecodeHead._pixel_weight


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


for _name in ("CrossEntropyLoss", "DiceLoss", "FocalLoss", "LovaszLoss", "TverskyLoss"):
    MODELS.register_module(name=f"Segfast{_name}", module=getattr(models, _name), force=True)
TASK_UTILS.register_module(
    name="SegfastOHEMPixelSampler", module=models.OHEMPixelSampler, force=True
)
globals().update(_register_heads())
