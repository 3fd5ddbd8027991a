"""Test-time augmentation: predict several versions of an image, merge what is said about it."""

# SPDX-License-Identifier: Apache-2.0
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from segfast.errors import UserError
from segfast.models.base import BaseModel
from segfast.registry import MODELS
from segfast.structures import PixelData, SegDataSample


class BaseTTAModel(BaseModel):
    """Wraps a model and merges its predictions of several versions of each image.

    Args:
        module: the model or its config; it has a `test_step`.
        data_preprocessor: replaces that of a `module` given as config.
    """

    def __init__(
        self,
        module: nn.Module | Mapping,
        data_preprocessor: nn.Module | Mapping | None = None,
    ) -> None:
        """Build the model.

        Raises:
            TypeError: `module` is neither a module nor a config.
        """
        super().__init__()
        if isinstance(module, Mapping):
            if data_preprocessor is not None:
                module = {**module, "data_preprocessor": data_preprocessor}
            module = MODELS.build(module, path="module")
        if not isinstance(module, nn.Module):
            raise TypeError(f"module should be a model or its config, got {module!r}")
        assert hasattr(module, "test_step"), f"{type(module).__name__} has no test_step"
        self.module: Any = module

    @abstractmethod
    def merge_preds(self, data_samples_list: Sequence[Sequence]) -> list:
        """Merge predictions.

        Args:
            data_samples_list: for every image, the predictions of its versions.

        Returns:
            One prediction per image.
        """

    def test_step(self, data: Any) -> list:
        """Predict every version of a batch, and merge.

        Args:
            data: a collated batch whose entries are lists over versions first, images second:
                dict(inputs=[[image of every sample] of every version], data_samples=[[...], ...]),
                or a tuple or list of such entries.

        Returns:
            What `merge_preds` makes of it.

        Raises:
            TypeError: `data` is of another kind.
        """
        if isinstance(data, Mapping):
            count = len(next(iter(data.values())))
            versions: list = [{key: value[i] for key, value in data.items()} for i in range(count)]
        elif isinstance(data, (tuple, list)):
            versions = [[entry[i] for entry in data] for i in range(len(data[0]))]
        else:
            raise TypeError(f"expected a batch as dict, tuple or list, got {type(data)}")
        predictions = [self.module.test_step(version) for version in versions]
        return self.merge_preds(list(zip(*predictions, strict=True)))

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        """Not available: only `test_step` knows several versions of an image."""
        raise NotImplementedError(f"{type(self).__name__} predicts in test_step only")


@MODELS.register_module()
class SegTTAModel(BaseTTAModel):
    """Averages the class probabilities of all versions, at the original images' size.

    Flips, paddings and scales were undone by the segmentor before.
    """

    def merge_preds(self, data_samples_list: Sequence[Sequence]) -> list[SegDataSample]:
        """Merge predictions.

        Args:
            data_samples_list: for every image its versions' samples, which carry `seg_logits`: logits,
                or the probability where there is one channel.

        Returns:
            For every image the last version's sample with `pred_sem_seg` (1, h, w) int64 replaced,
            and `gt_sem_seg` and `img_path` of the first one.

        Raises:
            UserError: the samples carry no logits.
        """
        return [self._merge(samples) for samples in data_samples_list]

    def _merge(self, samples: Sequence[SegDataSample]) -> SegDataSample:
        total: Any = None
        for sample in samples:
            if "seg_logits" not in sample:
                raise UserError(
                    "SegTTAModel averages probabilities, but the samples carry no logits (set "
                    "model.test_cfg.keep_logits to None or True)"
                )
            logits: torch.Tensor = sample.seg_logits.data
            total_of_one = logits if logits.shape[0] == 1 else logits.softmax(dim=0)
            total = total_of_one if total is None else total + total_of_one
        mean = total / len(samples)
        if mean.shape[0] == 1:
            pred = (mean > getattr(self.module, "threshold", 0.5)).long()
        else:
            pred = mean.argmax(0, keepdim=True)
        first, last = samples[0], samples[-1]
        last.set_data({"pred_sem_seg": PixelData(data=pred)})
        if "gt_sem_seg" in first:
            last.set_data({"gt_sem_seg": first.gt_sem_seg})
        if "img_path" in first:
            last.set_metainfo({"img_path": first.get("img_path")})
        return last
