"""Images of editing become one batch: padded in raw units and then normalised, or the other way round.

Math: `out[c] = (x[c] - mean[c]) / std[c]`, where x is the image with its red and blue exchanged if asked for. With
`pad_first` the padding is part of x, hence `(pad_value - mean[c]) / std[c]` in channel c; else it is `pad_value`.

Source: MMagic's DataPreprocessor (order of operations).
"""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segfast import ops
from segfast.models.channel_order import swap_red_and_blue
from segfast.models.data_preprocessor import padding_of


@dataclass(frozen=True)
class Padding:
    """How a batch is padded, right and bottom, up to its largest image.

    Args:
        size_divisor: height and width become multiples of this.
        value: fills the padding.
        mode: of `torch.nn.functional.pad`; all but "constant" ignore `value`.
    """

    size_divisor: int = 1
    value: float = 0
    mode: str = "constant"

    def size(self, images: Sequence[Tensor]) -> torch.Size:
        """(H, W) of the batch."""
        largest = [max(image.shape[dim] for image in images) for dim in (-2, -1)]
        return torch.Size(-(-x // self.size_divisor) * self.size_divisor for x in largest)

    def pad(self, images: Tensor, size: torch.Size) -> Tensor:
        """Images (..., H_i, W_i) -> (..., H, W)."""
        pads = padding_of(images.shape, size)
        if not any(pads):
            return images
        if self.mode == "constant":
            return F.pad(images, pads, value=self.value)
        flat = images.reshape(-1, *images.shape[-3:])  # other modes take four dimensions at most
        return F.pad(flat, pads, self.mode).view(*images.shape[:-2], *size)


def stack_images(
    images: Sequence[Tensor],
    mean: Sequence[float],
    std: Sequence[float],
    padding: Padding,
    *,
    swap: bool,
    pad_first: bool,
) -> Tensor:
    """Convert, normalise, pad and stack in one kernel.

    Args:
        images: N images (C, H_i, W_i) or clips (T, C, H_i, W_i), of one dtype.
        mean: 1 or C numbers in the output's channel order.
        std: 1 or C numbers.
        padding: how to pad.
        swap: exchange red and blue first.
        pad_first: pad in raw units, before normalising.

    Returns:
        (N, C, H, W) or (N, T, C, H, W) float32.
    """
    clips = [image if image.ndim > 3 else image[None] for image in images]
    frames = [frame for clip in clips for frame in clip]
    if swap and frames[0].shape[0] != 3:  # the kernel reverses all channels
        frames, swap = [swap_red_and_blue(frame) for frame in frames], False
    size = padding.size(frames)
    is_constant = padding.mode == "constant"
    fills = [float(padding.value)]
    if pad_first and is_constant:
        fills = _normalized_value(padding.value, frames[0].dtype, mean, std)
    elif pad_first:
        frames = [padding.pad(frame.float(), size) for frame in frames]
    batch = ops.normalize_pad_stack(
        frames,
        mean,
        std,
        size_divisor=padding.size_divisor if is_constant else 1,
        pad_value=fills[0],
        reverse_channels=swap,
    )
    if len(set(fills)) > 1:
        _repaint_padding(batch, frames, fills)
    if not (pad_first or is_constant):
        batch = padding.pad(batch, size)
    return batch.view(len(images), *images[0].shape[:-2], *size)


def stack_images_reference(
    images: Sequence[Tensor],
    normalize: Callable[[Tensor], Tensor],
    padding: Padding,
    *,
    swap: bool,
    pad_first: bool,
) -> Tensor:
    """`stack_images` step by step, with any normalisation, none included; the dtype is then the images'."""
    size = padding.size(images)
    batch = torch.stack([padding.pad(x, size) if pad_first else x for x in images])
    return padding.pad(normalize(swap_red_and_blue(batch) if swap else batch), size)


def padding_size(image: Tensor, batch: Tensor, every_dimension: bool) -> Tensor:
    """What was added to an image in each dimension: (0, h, w), with as many zeros as a clip in a list has."""
    added = [batch.shape[dim] - image.shape[dim] for dim in (-2, -1)]
    return torch.tensor([*[0] * (image.ndim - 2 if every_dimension else 1), *added]).float()


def check_equal_padding(paddings: Mapping[str, list[Tensor]]) -> None:
    """All images of a sample were padded alike, so that one `padding_size` describes them."""
    for key, sizes in paddings.items():
        first_key, first = next(iter(paddings.items()))
        for i, (size, expected) in enumerate(zip(sizes, first, strict=True)):
            if not torch.equal(size[-2:], expected[-2:]):
                raise ValueError(
                    f"sample {i}: '{key}' was padded by {size.tolist()}, but '{first_key}' by "
                    f"{expected.tolist()} (all images of a sample share one padding: bring them to one size)"
                )


def _normalized_value(
    value: float, dtype: torch.dtype, mean: Sequence[float], std: Sequence[float]
) -> list[float]:
    """What a raw value becomes in each channel; an integer image holds it without its fraction."""
    raw = torch.full((), value, dtype=dtype, device="cpu").float()
    return ((raw - torch.tensor(mean)) / torch.tensor(std)).tolist()


def _repaint_padding(batch: Tensor, frames: Sequence[Tensor], fills: Sequence[float]) -> None:
    """Write one number per channel: the kernel pads with one for all."""
    fill = torch.stack([batch.new_full((1, 1), value) for value in fills])  # no copy from the host
    for padded, frame in zip(batch, frames, strict=True):
        height, width = frame.shape[-2:]
        padded[:, height:] = fill
        padded[:, :height, width:] = fill
