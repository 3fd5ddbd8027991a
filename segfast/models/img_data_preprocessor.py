"""ImgDataPreprocessor: normalise, pad and stack images alone, for models without label maps."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segfast import ops
from segfast.models.base_data_preprocessor import (
    BaseDataPreprocessor,
    of_one_dtype,
    register_mean_std,
)
from segfast.registry import MODELS


def stack_batch(
    tensor_list: list[Tensor], pad_size_divisor: int = 1, pad_value: float = 0
) -> Tensor:
    """Pad tensors of any equal rank at the far end of every dimension but the first, and stack.

    Args:
        tensor_list: N tensors (C, d1, ...).
        pad_size_divisor: each padded dimension becomes a multiple of this.
        pad_value: fills the padding.

    Returns:
        (N, C, D1, ...): D the maximum over the list, rounded up.
    """
    assert isinstance(tensor_list, list), f"expected a list of tensors, got {type(tensor_list)}"
    assert tensor_list, "expected at least one tensor"
    ranks = {tensor.ndim for tensor in tensor_list}
    assert len(ranks) == 1, f"expected tensors of one rank, got {sorted(ranks)}"
    largest = [max(sizes) for sizes in zip(*(t.shape[1:] for t in tensor_list), strict=True)]
    target = [-(-size // pad_size_divisor) * pad_size_divisor for size in largest]
    padded = []
    for tensor in tensor_list:
        missing = [want - have for want, have in zip(target, tensor.shape[1:], strict=True)]
        pads = [side for amount in reversed(missing) for side in (0, amount)]
        padded.append(F.pad(tensor, pads, value=pad_value) if any(pads) else tensor)
    return torch.stack(padded)


@MODELS.register_module()
class ImgDataPreprocessor(BaseDataPreprocessor):
    """Converts channels, normalises, pads and stacks `inputs`; everything else only moves.

    Args:
        mean: 1 or 3 values in the output's channel order; None, with `std`, for no normalisation.
        std: 1 or 3 values.
        pad_size_divisor: height and width become multiples of this.
        pad_value: padding, in normalised units.
        bgr_to_rgb: reverse the three channels.
        rgb_to_bgr: the same; not both.
        non_blocking: let copies to a CUDA device overlap with the host (needs pinned memory).
        staging: send a batch to a CUDA device in one copy.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        pad_size_divisor: int = 1,
        pad_value: float = 0,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        non_blocking: bool = False,
        staging: bool = True,
    ) -> None:
        """Check the settings."""
        super().__init__(non_blocking, staging)
        assert not (bgr_to_rgb and rgb_to_bgr), "set only one of `bgr2rgb` and `rgb2bgr`"
        assert (mean is None) == (std is None), "mean and std should be given together or not"
        if mean is not None and std is not None:
            assert len(mean) in (1, 3), f"`mean` should have 1 or 3 values, got {len(mean)}"
            assert len(std) in (1, 3), f"`std` should have 1 or 3 values, got {len(std)}"
        self._enable_normalize = mean is not None
        self._channel_conversion = bgr_to_rgb or rgb_to_bgr
        self.pad_size_divisor = pad_size_divisor
        self.pad_value = pad_value
        self._mean, self._std = register_mean_std(self, mean, std)

    def forward(self, data: Mapping, training: bool = False) -> dict[str, Any]:
        """Normalise and stack.

        Args:
            data: `inputs`: N tensors (C, H_i, W_i), or one (N, C, H, W); other keys are kept.
            training: not used.

        Returns:
            The moved dict with `inputs` (N, C, H, W) float32 and `data_samples` (None if absent).

        Raises:
            TypeError: `inputs` is neither a sequence of tensors nor a tensor.
        """
        batch: dict[str, Any] = self._staged_cast(data)
        inputs = batch["inputs"]
        if isinstance(inputs, Tensor):
            assert inputs.ndim == 4, f"expected inputs (N, C, H, W), got {tuple(inputs.shape)}"
            images = list(inputs)
        elif isinstance(inputs, (list, tuple)) and all(isinstance(x, Tensor) for x in inputs):
            images = of_one_dtype(inputs)
        else:
            raise TypeError(f"expected inputs as tensor or list of tensors, got {type(inputs)}")
        batch["inputs"] = self._stack(images)
        batch.setdefault("data_samples", None)
        return batch

    def _stack(self, images: list[Tensor]) -> Tensor:
        channels = {image.shape[0] for image in images}
        if self._channel_conversion:
            assert channels == {3}, f"channel conversion needs 3 channels, got {sorted(channels)}"
        is_planar = all(image.ndim == 3 for image in images)
        if self._mean is not None and len(self._mean) == 3:
            shapes = [tuple(image.shape) for image in images]
            is_colour = is_planar and channels == {3}
            assert is_colour, f"If the mean has 3 values, images should be (3, H, W), got {shapes}"
        if not is_planar:
            return stack_batch(
                [self._normalize(x) for x in images], self.pad_size_divisor, self.pad_value
            )
        return ops.normalize_pad_stack(
            images,
            self._mean,
            self._std,
            size_divisor=self.pad_size_divisor,
            pad_value=self.pad_value,
            reverse_channels=self._channel_conversion,
        )

    def _normalize(self, image: Tensor) -> Tensor:
        """The eager chain, for images of other ranks than the kernel's."""
        image = (image[[2, 1, 0]] if self._channel_conversion else image).float()
        if not self._enable_normalize:
            return image
        return (image - self.get_buffer("mean")) / self.get_buffer("std")
