"""SegDataPreProcessor: a collated batch moves to the device and becomes one padded tensor."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segfast import ops
from segfast.errors import DataError
from segfast.models.base_data_preprocessor import (
    BaseDataPreprocessor,
    of_one_dtype,
    register_mean_std,
)
from segfast.models.mixed_labels import GROUND_TRUTH
from segfast.registry import MODELS
from segfast.structures import SegDataSample


@MODELS.register_module()
class SegDataPreProcessor(BaseDataPreprocessor):
    """Normalises, pads and stacks images and their label maps: one kernel for each of the two.

    Labels keep their dtype: uint8 masks stay uint8 all the way to the loss.

    Args:
        mean: per channel, in the order after conversion; None switches normalisation off.
        std: per channel, required with `mean`.
        size: (H, W) that training batches are padded up to; never crops.
        size_divisor: training batches are padded to the batch maximum, rounded up to a multiple of
            this. With neither `size` nor `size_divisor`: to the batch maximum.
        pad_val: pads images, in normalised units.
        seg_pad_val: pads label, edge and depth maps.
        bgr_to_rgb: reverse the channels of three-channel images.
        rgb_to_bgr: the same; not both.
        batch_augments: `f(inputs, data_samples) -> (inputs, data_samples)` or its config, for example
            dict(type="CutMix"), or a list of those; called in training, on the stacked batch.
        test_cfg: dict with `size` or `size_divisor` for validation, test and prediction.
        channels_last: write the batch in torch.channels_last, which convolutions are often faster in
            (about 1.6 times on a CPU for MobileNetV2).
        non_blocking: let copies to a CUDA device overlap with the host (needs pinned memory).
        staging: send a batch to a CUDA device in one copy.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: tuple[int, int] | None = None,
        size_divisor: int | None = None,
        pad_val: float = 0,
        seg_pad_val: float = 255,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        batch_augments: Callable | Mapping | Sequence[Callable | Mapping] | None = None,
        test_cfg: Mapping | None = None,
        channels_last: bool = False,
        non_blocking: bool = False,
        staging: bool = True,
    ) -> None:
        """Check the settings and build `batch_augments`; nothing is moved or allocated yet.

        Raises:
            ConfigError: the config of an augmentation is wrong.
        """
        super().__init__(non_blocking, staging)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        assert not (bgr_to_rgb and rgb_to_bgr), "set only one of `bgr_to_rgb` and `rgb_to_bgr`"
        assert mean is None or std is not None, "`std` is needed when `mean` is given"
        for cfg in ({"size": size, "size_divisor": size_divisor}, test_cfg or {}):
            both = cfg.get("size") is not None and cfg.get("size_divisor") is not None
            assert not both, "only one of size and size_divisor should be valid"
        self.size = size
        self.size_divisor = size_divisor
        self.pad_val = pad_val
        self.seg_pad_val = seg_pad_val
        self.channel_conversion = bgr_to_rgb or rgb_to_bgr
        self.batch_augments = _built(batch_augments)
        self.test_cfg = test_cfg
        self._enable_normalize = mean is not None
        self._mean, self._std = register_mean_std(self, mean, std)

    def forward(self, data: Mapping, training: bool = False) -> dict[str, Any]:
        """Turn a collated batch into what the model takes.

        Args:
            data: `inputs`, N images (C, H_i, W_i) of one integer or float dtype, and
                `data_samples`, N samples (may be missing when `training` is False).
            training: pad by `size` or `size_divisor` and pad the ground truth too; otherwise pad
                by `test_cfg` and leave the ground truth as it is.

        Returns:
            `dict(inputs=(N, C, H, W) float32, data_samples=new samples)`. Training samples carry
            `img_shape`, `pad_shape` and `padding_size`; the others, if anything was padded,
            `img_padding_size` and `pad_shape`. Paddings are (left=0, right, top=0, bottom).

        Raises:
            DataError: images are larger than `size` and of different sizes; an image's channels do not
                fit `mean`; a map is of another size than its image.
        """
        data = self._staged_cast(data)
        inputs, samples = of_one_dtype(data["inputs"]), data.get("data_samples")
        shapes = [image.shape[-2:] for image in inputs]
        if not training:
            cfg = self.test_cfg or {}
            batch = self._stack(inputs, samples, cfg.get("size"), cfg.get("size_divisor"))
            if self.test_cfg or len(set(shapes)) > 1:
                samples = _note_test_padding(samples, shapes, batch.shape[-2:])
            return {"inputs": batch, "data_samples": samples}
        assert samples is not None, "data_samples are needed in training"
        batch = self._stack(inputs, samples, self.size, self.size_divisor)
        size = batch.shape[-2:]
        for name in GROUND_TRUTH:
            self._pad_maps(name, samples, shapes, size)
        _note_train_padding(samples, shapes, size)
        for augment in self._augments():
            batch, samples = augment(batch, samples)
        return {"inputs": batch, "data_samples": samples}

    def _augments(self) -> list[Callable]:
        given = self.batch_augments
        if given is None:
            return []
        return [given] if callable(given) else list(given)

    def _stack(
        self,
        images: list[Tensor],
        samples: Sequence | None,
        size: tuple[int, int] | None,
        size_divisor: int | None,
    ) -> Tensor:
        """Images (C, H_i, W_i) -> (N, C, H, W) float32 through one kernel."""
        if size is not None:
            size = _common_size(images, samples, size)
        channels, means = images[0].shape[0], len(self._mean or [0])
        if means not in (1, channels):
            raise DataError(
                f"{_name(samples, 0)}: image has {channels} channel(s), but data_preprocessor.mean has "
                f"{means} values (give one per channel, or load the image with {means} channels)"
            )
        return ops.normalize_pad_stack(
            images,
            self._mean,
            self._std,
            size=size,
            size_divisor=max(size_divisor or 1, 1),
            pad_value=self.pad_val,
            reverse_channels=self.channel_conversion and images[0].shape[0] == 3,
            memory_format=self.memory_format,
        )

    def _pad_maps(
        self, name: str, samples: Sequence, shapes: list[torch.Size], size: torch.Size
    ) -> None:
        """Pad one ground-truth field of every sample that has it to `size`."""
        holders = [(i, sample) for i, sample in enumerate(samples) if name in sample]
        maps = [getattr(sample, name).data for _, sample in holders]
        for (i, _), label in zip(holders, maps, strict=True):
            if label.shape[-2:] != shapes[i]:
                raise DataError(
                    f"{_name(samples, i)}: {name} is {tuple(label.shape[-2:])} but its image is "
                    f"{tuple(shapes[i])} (resize and crop both, or check that they belong together)"
                )
        for (_, sample), padded in zip(
            holders, pad_maps(maps, size, self.seg_pad_val), strict=True
        ):
            field = getattr(sample, name)
            del field.data  # the field pins height and width while it holds data
            field.data = padded


def _built(augments: Any) -> Any:
    """Functions as they are, configs built."""
    if augments is None or callable(augments):
        return augments
    if isinstance(augments, Mapping):
        return MODELS.build(augments, path="batch_augments")
    return [MODELS.build(cfg, path=f"batch_augments[{i}]") for i, cfg in enumerate(augments)]


def _common_size(
    images: list[Tensor], samples: Sequence | None, size: tuple[int, int]
) -> tuple[int, int]:
    """`size`, or what images that all exceed it alike have instead: padding never crops."""
    targets = {(max(x.shape[-2], size[0]), max(x.shape[-1], size[1])) for x in images}
    if len(targets) == 1:
        return targets.pop()
    shapes = [tuple(image.shape[-2:]) for image in images]
    large = next(i for i, (h, w) in enumerate(shapes) if h > size[0] or w > size[1])
    raise DataError(
        f"{_name(samples, large)}: image is {shapes[large]}, larger than data_preprocessor.size "
        f"{tuple(size)} (padding never crops: crop or resize in the pipeline, or set size_divisor "
        "instead)"
    )


def pad_maps(maps: list[Tensor], size: torch.Size, pad_value: float) -> Sequence[Tensor]:
    """Pad maps (K, H_i, W_i) right and bottom to `size`; views of one batch where that works."""
    kinds = {(m.dtype, m.shape[0]) for m in maps}
    dtype, planes = next(iter(kinds), (torch.float32, 0))
    is_integer = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
    if len(kinds) == 1 and planes == 1 and is_integer:
        return ops.pad_stack(maps, size=(size[0], size[1]), pad_value=int(pad_value)).unbind(0)
    return [F.pad(m, padding_of(m.shape, size), value=pad_value) for m in maps]


def padding_of(shape: torch.Size, size: torch.Size) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) that takes an image of `shape` to `size`."""
    return 0, size[-1] - shape[-1], 0, size[-2] - shape[-2]


def _note_train_padding(samples: Sequence, shapes: list[torch.Size], size: torch.Size) -> None:
    for sample, shape in zip(samples, shapes, strict=True):
        has_maps = any(name in sample for name in GROUND_TRUTH)
        sample.set_metainfo(
            {
                "img_shape": shape,
                "pad_shape": tuple(size) if has_maps else None,
                "padding_size": padding_of(shape, size),
            }
        )


def _note_test_padding(
    samples: Sequence | None, shapes: list[torch.Size], size: torch.Size
) -> Sequence:
    """Write the padding into the samples; without samples, make them, so that it is not lost."""
    if samples is None:
        metas = [{"ori_shape": tuple(shape), "img_shape": tuple(shape)} for shape in shapes]
        samples = [SegDataSample(metainfo=meta) for meta in metas]
    for sample, shape in zip(samples, shapes, strict=True):
        padding = padding_of(shape, size)
        sample.set_metainfo({"img_padding_size": padding, "pad_shape": torch.Size(size)})
    return samples


def _name(samples: Sequence | None, index: int) -> str:
    """How messages call sample `index`: its file where known."""
    path = samples[index].get("img_path") if samples is not None else None
    return str(path or f"sample {index} of the batch")
