"""Between pixels and what a network sees, both ways: channel order, normalisation, padding taken off again."""

# SPDX-License-Identifier: Apache-2.0
import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from segfast.models.channel_order import (
    batch_channel_order,
    channel_index,
    channel_order,
    conversion,
    swap_red_and_blue,
)
from segfast.models.img_data_preprocessor import ImgDataPreprocessor
from segfast.structures import BaseDataElement


class PixelConversion(ImgDataPreprocessor):
    """What editing's data preprocessor does to one tensor; batches are `DataPreprocessor`'s.

    Args:
        mean: 1 or 3 values in the output's channel order; None, with `std`, for no normalisation.
        std: 1 or 3 values.
        pad_size_divisor: height and width become multiples of this.
        pad_value: fills the padding.
        input_view: shape that mean and std are viewed in to normalise.
        output_view: shape that they are viewed in to undo it.
        non_blocking: let copies to a CUDA device overlap with the host (needs pinned memory).
        staging: send a batch to a CUDA device in one copy.
    """

    _parse_channel_index = staticmethod(channel_index)
    _parse_channel_order = staticmethod(channel_order)
    _parse_batch_channel_order = staticmethod(batch_channel_order)

    def __init__(
        self,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        pad_size_divisor: int = 1,
        pad_value: float = 0,
        *,
        input_view: Sequence[int] | None = None,
        output_view: Sequence[int] | None = None,
        non_blocking: bool = False,
        staging: bool = True,
    ) -> None:
        """Check the settings."""
        super().__init__(
            mean, std, pad_size_divisor, pad_value, non_blocking=non_blocking, staging=staging
        )
        self.input_view, self.output_view = input_view, output_view
        self._done_padding = False
        self._warned: set[str] = set()

    def destruct(
        self,
        outputs: Tensor,
        data_samples: Sequence | BaseDataElement | None = None,
        key: str = "img",
        same_padding: bool = True,
    ) -> Any:
        """Undo normalisation, channel order and padding of a model's output or input.

        Args:
            outputs: normalised images, in the field's present channel order.
            data_samples: a list of N samples or a stacked one, or one sample for a single image.
            key: the field whose channel order `outputs` has.
            same_padding: cut all images as the first one needs it; otherwise each by its own padding.

        Returns:
            BGR images in [0, 255], unpadded: a new tensor, or a list of N with `same_padding=False`.
        """
        images = self._destruct_norm_and_conversion(outputs, data_samples, key)
        images = self._destruct_padding(images, data_samples, same_padding)
        if isinstance(images, list):
            return [image.clamp(0, 255) for image in images]
        return images.clamp(0, 255)

    def _destruct_norm_and_conversion(
        self, batch_tensor: Tensor, data_samples: Sequence | BaseDataElement | None, key: str
    ) -> Tensor:
        key = f"{key}_output"
        if isinstance(data_samples, (list, tuple)):
            order = batch_channel_order(key, batch_tensor, data_samples)  # type: ignore[arg-type]
        else:
            order = channel_order(key, batch_tensor, data_samples)
        if self._enable_normalize:
            mean, std = self._mean_and_std(batch_tensor, self.output_view)
            batch_tensor = batch_tensor * std + mean
        return self._do_conversion(batch_tensor, order, "BGR")[0]

    def _destruct_padding(
        self,
        batch_tensor: Tensor,
        data_samples: Sequence | BaseDataElement | None,
        same_padding: bool = True,
    ) -> Any:
        if data_samples is None:
            return batch_tensor
        one = not isinstance(data_samples, (list, tuple))
        first = data_samples if one else data_samples[0]  # type: ignore[index]
        padding = first.metainfo.get("padding_size")  # type: ignore[union-attr]
        if padding is None:
            if self._done_padding:
                self._warn_once("data_samples carry no padding_size: the padding is kept")
            return batch_tensor
        if one and not isinstance(padding, list):
            return _unpad(batch_tensor, padding)
        paddings = padding if one else [s.metainfo["padding_size"] for s in data_samples]  # type: ignore[union-attr]
        if same_padding:
            return _unpad(batch_tensor, paddings[0])
        return [_unpad(image, size) for image, size in zip(batch_tensor, paddings, strict=True)]

    def _do_conversion(
        self, inputs: Tensor, inputs_order: str = "BGR", target_order: str | None = None
    ) -> tuple[Tensor, str]:
        """Images in another channel order, and that order; grey ones stay grey."""
        swap, order = conversion(inputs_order, target_order)
        return swap_red_and_blue(inputs) if swap else inputs, order

    def _do_norm(self, inputs: Tensor, do_norm: bool | None = None) -> Tensor:
        """(inputs - mean) / std, mean and std viewed to fit the rank, or as `input_view` says."""
        if not self._enable_normalize or do_norm is False:
            return inputs
        if self.input_view is None:
            self._check_channels(inputs.shape[channel_index(inputs)])
        mean, std = self._mean_and_std(inputs, self.input_view)
        return (inputs - mean) / std

    def _check_channels(self, channels: int) -> None:
        for name in ("mean", "std"):
            count = self.get_buffer(name).numel()
            assert count in (1, channels), (
                f"{name} has {count} values, but the images have {channels} channels"
            )

    def _mean_and_std(self, images: Tensor, view: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        if view is None:
            view = (1, -1) if images.ndim == 2 else (-1, 1, 1)
        return self.get_buffer("mean").view(*view), self.get_buffer("std").view(*view)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, stacklevel=3)


def _unpad(images: Tensor, padding: Tensor) -> Tensor:
    height, width = (int(amount) for amount in padding[-2:])
    return images[..., : images.shape[-2] - height, : images.shape[-1] - width]
