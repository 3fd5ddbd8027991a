"""DataPreprocessor: images of editing and generation, several inputs a sample, ground truth that is an image too."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segfast.models.channel_order import (
    batch_channel_order,
    channel_order,
    conversion,
    swap_red_and_blue,
)
from segfast.models.pad_normalize import (
    Padding,
    check_equal_padding,
    padding_size,
    stack_images,
    stack_images_reference,
)
from segfast.models.pixel_conversion import PixelConversion
from segfast.registry import MODELS
from segfast.structures import DataSample


@MODELS.register_module()
class DataPreprocessor(PixelConversion):
    """Pads, stacks, converts and normalises inputs and image-like ground truth, and takes outputs back to pixels.

    A list of images is padded in raw units, then normalised; a tensor that is stacked already is normalised, then
    padded, so that `pad_value` is in normalised units there. Both run in one kernel, unless `mean` is None or
    `input_view` is given.

    Args:
        mean: one number, or 1 or 3 of them in the output's channel order; None, with `std`, for no normalisation.
        std: as `mean`.
        pad_size_divisor: height and width become multiples of this.
        pad_value: fills the padding.
        pad_mode: of `torch.nn.functional.pad`.
        non_image_keys: further keys of dict inputs that are stacked only; "noise" is one already.
        non_concentate_keys: further keys of dict inputs that hold one value for the batch; "num_batches", "mode",
            "sample_kwargs" and "eq_cfg" are already.
        output_channel_order: "RGB", "BGR" or None, which leaves the channels as they are.
        data_keys: fields of the samples that are images.
        input_view: shape that mean and std are viewed in to normalise.
        output_view: shape that they are viewed in to undo it.
        stack_data_sample: return one stacked `DataSample` instead of a list.
        non_blocking: let copies to a CUDA device overlap with the host (needs pinned memory).
        staging: send a batch to a CUDA device in one copy.
    """

    _NON_IMAGE_KEYS: Sequence[str] = ("noise",)
    _NON_CONCATENATE_KEYS: Sequence[str] = ("num_batches", "mode", "sample_kwargs", "eq_cfg")

    def __init__(
        self,
        mean: Sequence[float] | float | None = 127.5,
        std: Sequence[float] | float | None = 127.5,
        pad_size_divisor: int = 1,
        pad_value: float = 0,
        pad_mode: str = "constant",
        non_image_keys: str | Sequence[str] | None = None,
        non_concentate_keys: str | Sequence[str] | None = None,
        output_channel_order: str | None = None,
        data_keys: str | Sequence[str] | None = "gt_img",
        input_view: Sequence[int] | None = None,
        output_view: Sequence[int] | None = None,
        stack_data_sample: bool = True,
        non_blocking: bool = False,
        staging: bool = True,
    ) -> None:
        """Check the settings."""
        super().__init__(
            [mean] if isinstance(mean, (int, float)) else mean,
            [std] if isinstance(std, (int, float)) else std,
            pad_size_divisor,
            pad_value,
            input_view=input_view,
            output_view=output_view,
            non_blocking=non_blocking,
            staging=staging,
        )
        assert output_channel_order in (None, "RGB", "BGR"), (
            f"expected output_channel_order 'RGB', 'BGR' or None, got {output_channel_order!r}"
        )
        self.output_channel_order = output_channel_order
        self._NON_IMAGE_KEYS = [*self._NON_IMAGE_KEYS, *_names(non_image_keys)]
        self._NON_CONCATENATE_KEYS = [*self._NON_CONCATENATE_KEYS, *_names(non_concentate_keys)]
        self.pad_mode = pad_mode
        self.data_keys = _names(data_keys)
        self.stack_data_sample = stack_data_sample

    def forward(self, data: Mapping, training: bool = False) -> dict[str, Any]:
        """Turn a collated batch into what the model takes.

        Args:
            data: `inputs`: a tensor (C, H, W), (N, C, H, W) or (N, T, C, H, W), a list of N images, a dict of such
                tensors and lists, or a list of N dicts; `data_samples`: N samples, may be missing.
            training: ground truth is converted and normalised like the inputs; otherwise it is converted to BGR and
                stays in [0, 255], for metrics.

        Returns:
            The moved dict with `inputs` stacked and `data_samples` stacked into one (None where nothing is an image).
            Samples carry `padding_size`, a CPU tensor with the padding of every dimension, and the channel order that
            each field has now, `<key>_output_channel_order`.

        Raises:
            ValueError: `inputs` is none of these, or its images are padded differently.
        """
        batch: dict[str, Any] = self._staged_cast(data)
        inputs, samples = batch["inputs"], batch.get("data_samples")
        if _all_are(inputs, Mapping):
            inputs = {key: [one[key] for one in inputs] for key in inputs[0]}
        if isinstance(inputs, Tensor):
            inputs, samples = self._preprocess_image_tensor(inputs, samples)
        elif _all_are(inputs, Tensor):
            inputs, samples = self._preprocess_image_list(inputs, samples)
        elif isinstance(inputs, Mapping):
            inputs, samples = self._preprocess_dict_inputs(inputs, samples)
        else:
            raise ValueError(
                "expected inputs as a tensor, a list of tensors, a dict or a list of dicts, got "
                f"{type(inputs)}"
            )
        if samples:
            samples = self._preprocess_data_sample(samples, training)
        return {**batch, "inputs": inputs, "data_samples": samples}

    # ---- inputs --------------------------------------------------------------------------------

    def _preprocess_image_list(
        self, tensor_list: Sequence[Tensor], data_samples: Sequence | None, key: str = "img"
    ) -> tuple[Tensor, Sequence]:
        """N images (C, H_i, W_i) or clips (T, C, H_i, W_i): pad, then normalise."""
        ranks = {image.ndim for image in tensor_list}
        assert len(ranks) == 1, f"expected images of one rank, got {sorted(ranks)}"
        return self._preprocess_images(tensor_list, data_samples, key, pad_first=True)

    def _preprocess_image_tensor(
        self, inputs: Tensor, data_samples: Sequence | None = None, key: str = "img"
    ) -> tuple[Tensor, Sequence]:
        """(C, H, W), (N, C, H, W) or (N, T, C, H, W): normalise, then pad."""
        assert inputs.ndim in (3, 4, 5), (
            f"expected (C, H, W), (N, C, H, W) or (N, T, C, H, W), got {tuple(inputs.shape)}"
        )
        images = [inputs] if inputs.ndim == 3 else list(inputs)
        batch, samples = self._preprocess_images(images, data_samples, key, pad_first=False)
        return batch[0] if inputs.ndim == 3 else batch, samples

    def _preprocess_images(
        self, images: Sequence[Tensor], data_samples: Sequence | None, key: str, *, pad_first: bool
    ) -> tuple[Tensor, Sequence]:
        samples = data_samples or [DataSample() for _ in images]
        order = batch_channel_order(key, images, samples)
        target = self.output_channel_order
        if target is not None and order.upper() == "SINGLE":
            self._warn_once(f"'{key}' has one channel and is not converted to {target}")
        swap, order = conversion(order, target)
        padding = Padding(self.pad_size_divisor, self.pad_value, self.pad_mode)
        batch = self._stack_padded(images, padding, swap=swap, pad_first=pad_first)
        sizes = [padding_size(image, batch, pad_first) for image in images]
        return batch, self._update_metainfo(torch.stack(sizes), {key: order}, samples)

    def _stack_padded(
        self, images: Sequence[Tensor], padding: Padding, *, swap: bool, pad_first: bool
    ) -> Tensor:
        """One kernel, except where nothing is normalised or the user says how."""
        if self._mean is None or self._std is None or self.input_view is not None:
            return stack_images_reference(
                images, self._do_norm, padding, swap=swap, pad_first=pad_first
            )
        self._check_channels(images[0].shape[-3])
        return stack_images(images, self._mean, self._std, padding, swap=swap, pad_first=pad_first)

    def _preprocess_dict_inputs(
        self, batch_inputs: Mapping, data_samples: Sequence | None = None
    ) -> tuple[dict, Sequence | None]:
        """Every value by its kind: images, tensors that are none, one value for the whole batch."""
        outputs = dict(batch_inputs)
        paddings: dict[str, list[Tensor]] = {}
        for key, value in batch_inputs.items():
            is_image = key not in self._NON_IMAGE_KEYS
            if isinstance(value, (list, tuple)) and key in self._NON_CONCATENATE_KEYS:
                same = all(value[0] == other for other in value)
                assert same, f"expected one value of '{key}' in the batch, got {value}"
                outputs[key] = value[0]
            elif isinstance(value, (list, tuple)):
                assert _all_are(value, Tensor), (
                    f"expected tensors to stack for '{key}', got {[type(v) for v in value]} (hint: "
                    "add it to non_concentate_keys)"
                )
                if not is_image:
                    outputs[key] = torch.stack(list(value))
                    continue
                outputs[key], data_samples = self._preprocess_image_list(value, data_samples, key)
                paddings[key] = [sample.metainfo["padding_size"] for sample in data_samples]
            elif isinstance(value, Tensor) and is_image:
                outputs[key], data_samples = self._preprocess_image_tensor(value, data_samples, key)
                paddings[key] = [sample.metainfo["padding_size"] for sample in data_samples]
        check_equal_padding(paddings)
        return outputs, data_samples

    def _update_metainfo(
        self,
        padding_info: Tensor,
        channel_order_info: Mapping[str, str] | None = None,
        data_samples: Sequence | None = None,
    ) -> Sequence:
        """Note the padding of N samples, and the channel order that fields have now.

        Args:
            padding_info: (N, number of dimensions), on the CPU.
            channel_order_info: field -> order.
            data_samples: N samples; made here if None.
        """
        samples = data_samples or [DataSample() for _ in padding_info]
        assert len(samples) == len(padding_info), (
            f"got {len(samples)} data_samples for {len(padding_info)} images"
        )
        orders = (channel_order_info or {}).items()
        facts = {f"{key}_output_channel_order": order for key, order in orders}
        for sample, padding in zip(samples, padding_info, strict=True):
            sample.set_metainfo({"padding_size": padding, **facts})
        self._done_padding = bool(padding_info.any())
        return samples

    # ---- ground truth --------------------------------------------------------------------------

    def _preprocess_data_sample(self, data_samples: Sequence, training: bool) -> Any:
        """Convert and, in training, normalise the fields in `data_keys`; then stack the samples."""
        for key in self.data_keys:
            holders = [sample for sample in data_samples if hasattr(sample, key)]
            if holders:
                self._preprocess_field(key, holders, training)
            elif training:
                self._warn_once(f"data_keys: no data sample has a field '{key}'")
        if not self.stack_data_sample:
            return data_samples
        assert _all_are(data_samples, DataSample), (
            "only DataSamples can be stacked (hint: data_preprocessor.stack_data_sample=False)"
        )
        return DataSample.stack(data_samples)

    def _preprocess_field(self, key: str, samples: Sequence, training: bool) -> None:
        """One image-like field of all samples, in one kernel where it is normalised and alike."""
        images = [getattr(sample, key) for sample in samples]
        target = self.output_channel_order if training else "BGR"
        plans = [
            conversion(channel_order(key, image, sample), target)
            for image, sample in zip(images, samples, strict=True)
        ]
        alike = len({(x.shape, x.dtype) for x in images}) == 1 and len(set(plans)) == 1
        if training and alike and images[0].ndim in (3, 4) and self.input_view is None:
            images = list(self._stack_padded(images, Padding(), swap=plans[0][0], pad_first=False))
        else:
            images = [
                self._do_norm(swap_red_and_blue(image) if swap else image, training)
                for image, (swap, _) in zip(images, plans, strict=True)
            ]
        facts: dict[str, Any] = {"enable_norm": self._enable_normalize, "mean": None, "std": None}
        if self._enable_normalize:
            facts |= {"mean": self.get_buffer("mean"), "std": self.get_buffer("std")}
        for sample, image, (_, order) in zip(samples, images, plans, strict=True):
            sample.set_data({key: image})
            for name, value in {**facts, "output_channel_order": order}.items():
                # not by set_metainfo, which would copy mean and std
                sample.set_field(value, f"{key}_{name}", field_type="metainfo")


def _names(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or [])


def _all_are(values: Any, kind: type) -> bool:
    is_list = isinstance(values, (list, tuple)) and len(values) > 0
    return is_list and all(isinstance(value, kind) for value in values)
