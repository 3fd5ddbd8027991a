"""DataSample: what is known and predicted about one image in editing and generation, or about a stack of them."""

# SPDX-License-Identifier: Apache-2.0
import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from segfast.structures.base import BaseDataElement
from segfast.structures.label_data import LabelData, format_label


class DataSample(BaseDataElement):
    """Truth (`gt_img`, ...), inputs and predictions (`pred_img`, `output`, ...) of image editing.

    Images are tensors (C, H, W). A stacked sample holds N of them: tensors (N, C, H, W), and a list of N in place of
    every other value, metainfo included.

    Attributes:
        META_KEYS: what a pipeline calls a value -> the metainfo field it becomes.
        DATA_KEYS: what a pipeline calls a value -> the data field it becomes.
        gt_label: LabelData.
    """

    META_KEYS: ClassVar[dict[str, str]] = {
        name: name
        for name in (
            "img_path", "gt_path", "merged_path", "trimap_path", "ori_shape", "img_shape", "ori_merged_shape",
            "ori_trimap_shape", "trimap_channel_order", "empty_box", "ori_img_shape", "ori_gt_shape",
            "img_channel_order", "gt_channel_order", "gt_color_type", "img_color_type", "sample_idx",
            "num_input_frames", "num_output_frames", "mask_bbox", "coord", "cell",
        )
    }  # fmt: skip
    DATA_KEYS: ClassVar[dict[str, str]] = {
        "gt": "gt_img", "merged": "gt_merged", "fg": "gt_fg", "bg": "gt_bg", "alpha": "gt_alpha", "ref": "ref_img",
        **{
            name: name
            for name in (
                "gt_label", "gt_heatmap", "gt_unsharp", "ori_alpha", "gt_rgb", "img_lq", "ref_lq", "mask", "trimap",
                "gray", "cropped_img", "pred_img", "ori_trimap", "prompt", "latent", "feats",
            )
        },
    }  # fmt: skip

    _gt_label: LabelData

    @property
    def gt_label(self) -> LabelData:
        """The image's class."""
        return self._gt_label

    @gt_label.setter
    def gt_label(self, value: LabelData) -> None:
        self.set_field(value, "_gt_label", dtype=LabelData)

    @gt_label.deleter
    def gt_label(self) -> None:
        del self._gt_label

    # ---- from a pipeline's results -------------------------------------------------------------

    def set_predefined_data(self, data: dict) -> None:
        """Take what `META_KEYS` and `DATA_KEYS` name out of a pipeline's results; ignore the rest."""
        meta, fields = self.META_KEYS, self.DATA_KEYS
        self.set_metainfo({meta[name]: value for name, value in data.items() if name in meta})
        self.set_tensor_data({fields[name]: v for name, v in data.items() if name in fields})

    def set_tensor_data(self, data: dict) -> None:
        """Set data fields, images as tensors.

        Args:
            data: by field; arrays (H, W, C) or (H, W), lists of them (frames), tensors. `gt_label` may be anything that
                `set_gt_label` takes, `prompt` is a string or a list.

        Raises:
            AssertionError: `data` is no dict, or a value is none of these.
        """
        assert isinstance(data, dict), f"data should be a dict, got {type(data)}"
        for name, value in data.items():
            if name == "gt_label":
                self.set_gt_label(value)
            elif name == "prompt":
                self.set_field(value, name, dtype=(str, list))
            else:
                self.set_field(images_to_tensor(value), name, dtype=Tensor)

    def set_gt_label(self, value: Any) -> "DataSample":
        """Set `gt_label` from a number, a sequence, an array or a tensor; returns the sample.

        Raises:
            TypeError: `value` has another type.
            ValueError: a label is not below the metainfo's `num_classes`.
        """
        label = format_label(value, self.get("num_classes"))
        if "gt_label" in self:
            self.gt_label.label = label.label
        else:
            self.gt_label = label
        return self

    # ---- stacks --------------------------------------------------------------------------------

    @classmethod
    def stack(cls, data_samples: Sequence["DataSample"]) -> "DataSample":
        """N samples as one: tensors and labels are stacked, every other value becomes a list of N.

        Raises:
            AssertionError: the samples have different fields, or a field has different types.
        """
        first = data_samples[0]
        for sample in data_samples:
            assert sample.all_keys() == first.all_keys(), (
                f"expected samples with the same fields, got {first.all_keys()} and {sample.all_keys()}"
            )
        stacked = cls()
        for name, value in first.items():
            values = [value, *(getattr(sample, name) for sample in data_samples[1:])]
            stacked.set_field(_stack_values(name, values), name)
        for name in first.metainfo_keys():
            stacked.set_metainfo({name: [getattr(sample, name) for sample in data_samples]})
        return stacked

    def split(self, allow_nonseq_value: bool = False) -> list["DataSample"]:
        """The inverse of `stack`: `len(self)` samples.

        Args:
            allow_nonseq_value: give every sample a copy of a value that cannot be split, instead of raising.

        Raises:
            TypeError: a value is no sequence.
        """
        samples = [type(self)() for _ in range(len(self))]
        for name, value in self.all_items():
            kind = "metainfo" if name in self._metainfo_fields else "data"
            parts = self._split_value(name, value, len(samples), allow_nonseq_value)
            for sample, part in zip(samples, parts, strict=False):
                sample.set_field(part, name, field_type=kind)  # type: ignore[arg-type]
        return samples

    @staticmethod
    def _split_value(name: str, value: Any, count: int, allow_nonseq_value: bool) -> Sequence:
        if isinstance(value, LabelData):
            return [LabelData(label=label) for label in value.label]
        if isinstance(value, DataSample):
            return value.split(allow_nonseq_value)
        if is_splitable_var(value):
            return list(value)
        if allow_nonseq_value:
            return [copy.deepcopy(value) for _ in range(count)]
        raise TypeError(
            f"'{name}' is non-sequential data and cannot be split (hint: allow_nonseq_value=True copies it)"
        )

    def __len__(self) -> int:
        """The length that all values agree on; 1 if they do not, or if there is none."""
        lengths = {
            len(value.label) if isinstance(value, LabelData) else len(value)
            for value in self.all_values()
            if isinstance(value, LabelData) or is_splitable_var(value)
        }
        return lengths.pop() if len(lengths) == 1 else 1


def is_splitable_var(value: Any) -> bool:
    """Whether `split` can deal a value out: samples, tensors, arrays, sequences other than strings."""
    if isinstance(value, (DataSample, Tensor, np.ndarray)):
        return True
    return isinstance(value, Sequence) and not isinstance(value, str)


def _stack_values(name: str, values: list) -> Any:
    kinds = {type(value) for value in values}
    assert len(kinds) == 1, f"expected {name} of one type in all samples, got {kinds}"
    if isinstance(values[0], Tensor):
        return torch.stack(values)
    if isinstance(values[0], LabelData):
        return LabelData(label=torch.stack([value.label for value in values]))
    return values


def images_to_tensor(value: Any) -> Any:
    """An array (H, W, C) or (H, W) as a tensor (C, H, W), a list of T arrays as (T, C, H, W).

    One image keeps its memory where that is writable: the tensor is a transposed view. A list of one array is that
    image. Tensors, and what is no image (scalars, strings, vectors), come back as they are.
    """
    if _is_image(value):
        tensor = torch.from_numpy(np.require(value, requirements=["C", "W"]))
        return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    if isinstance(value, (list, tuple)) and value and all(map(_is_image, value)):
        frames = [images_to_tensor(frame) for frame in value]
        return frames[0] if len(frames) == 1 else torch.stack(frames)
    return value


def _is_image(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 1
