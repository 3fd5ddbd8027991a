"""Peak signal-to-noise ratio of an image against its truth.

Math: `20 log10(255 / sqrt(mean((a - b)^2)))`, infinite for equal images; images in [0, 255]. On luma:
`Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255`.

Source: ITU-R BT.601 (luma); MMagic's PSNR (cropping, order of operations).
"""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segfast.evaluation.metric import BaseMetric
from segfast.registry import METRICS

_LUMA_OF_RGB = (65.481, 128.553, 24.966)


@METRICS.register_module()
class PSNR(BaseMetric):
    """Mean PSNR over the images of a data set.

    Images are compared where they are: nothing waits for the device before `evaluate`.

    Args:
        gt_key: field of the sample that is the truth.
        pred_key: field of the sample's `output` that is the prediction.
        collect_device: see `BaseMetric`.
        prefix: put before the name.
        crop_border: pixels that are left out along every edge.
        input_order: "CHW" or "HWC"; (H, W) is neither.
        convert_to: "Y" to compare luma; images are BGR then.
    """

    metric = "PSNR"

    def __init__(
        self,
        gt_key: str = "gt_img",
        pred_key: str = "pred_img",
        collect_device: str = "cpu",
        prefix: str | None = None,
        crop_border: int = 0,
        input_order: str = "CHW",
        convert_to: str | None = None,
    ) -> None:
        """Check the settings.

        Raises:
            ValueError: `input_order` or `convert_to` is none of the above.
        """
        super().__init__(collect_device, prefix)
        _check_options(input_order, convert_to)
        self.gt_key, self.pred_key = gt_key, pred_key
        self.crop_border, self.input_order, self.convert_to = crop_border, input_order, convert_to

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Add an entry per sample; a clip (T, C, H, W) counts with the mean of its frames."""
        for sample in data_samples:
            pred = torch.as_tensor(_field(sample["output"], self.pred_key))
            truth = torch.as_tensor(_field(sample, self.gt_key)).to(pred.device)
            frames = zip(truth, pred, strict=True) if pred.ndim > 3 else [(truth, pred)]
            options = (self.crop_border, self.input_order, self.convert_to, "bgr")
            values = [psnr(a, b, *options) for a, b in frames]
            self.results.append({self.metric: torch.stack(values).mean()})

    def compute_metrics(self, results: list) -> dict:
        """The mean of all entries."""
        values = [float(result[self.metric]) for result in results]
        return {self.metric: sum(values) / len(values)}


def psnr(
    img1: Any,
    img2: Any,
    crop_border: int = 0,
    input_order: str = "HWC",
    convert_to: str | None = None,
    channel_order: str = "rgb",
) -> Tensor:
    """PSNR of one image against another.

    Args:
        img1: (H, W), (H, W, C) or (C, H, W), tensor or array of any real dtype, in [0, 255].
        img2: of the same shape.
        crop_border: pixels that are left out along every edge.
        input_order: "HWC" or "CHW".
        convert_to: None, or "Y" to compare luma.
        channel_order: "rgb" or "bgr", for luma.

    Returns:
        0-d float64 on the images' device; infinite for equal images.

    Raises:
        ValueError: unknown `input_order`, `convert_to` or `channel_order`.
        AssertionError: the shapes differ.
    """
    _check_options(input_order, convert_to, channel_order)
    images = [torch.as_tensor(image) for image in (img1, img2)]
    shapes = [tuple(image.shape) for image in images]
    assert shapes[0] == shapes[1], f"Image shapes are different: {shapes[0]}, {shapes[1]}"
    planes = [_planes(image.float(), input_order) for image in images]
    if convert_to is not None:
        planes = [_luma(image, channel_order) for image in planes]
    if crop_border:
        inside = slice(crop_border, -crop_border)
        planes = [image[:, inside, inside] for image in planes]
    error = (planes[0] - planes[1]).square().mean(dtype=torch.float64)
    return 20 * torch.log10(255 / error.sqrt())


def _planes(image: Tensor, input_order: str) -> Tensor:
    """(C, H, W)."""
    if image.ndim == 2:
        return image[None]
    return image if input_order == "CHW" else image.permute(2, 0, 1)


def _luma(image: Tensor, channel_order: str) -> Tensor:
    """(3, H, W) in [0, 255] -> (1, H, W) in [16, 235]."""
    assert image.shape[0] == 3, f"expected 3 channels for luma, got {image.shape[0]}"
    weights = _LUMA_OF_RGB if channel_order.lower() == "rgb" else _LUMA_OF_RGB[::-1]
    weighted = [image[i] * (weight / 255) for i, weight in enumerate(weights)]
    return (weighted[0] + weighted[1] + weighted[2] + 16)[None]


def _check_options(input_order: str, convert_to: str | None, channel_order: str = "rgb") -> None:
    if input_order not in ("HWC", "CHW"):
        raise ValueError(f"expected input_order 'HWC' or 'CHW', got {input_order!r}")
    if convert_to is not None and str(convert_to).lower() != "y":
        raise ValueError(f"expected convert_to 'Y' or None, got {convert_to!r}")
    if channel_order.lower() not in ("rgb", "bgr"):
        raise ValueError(f"expected channel_order 'rgb' or 'bgr', got {channel_order!r}")


def _field(sample: Mapping, key: str) -> Any:
    """A field of a sample as a dict; of a field that is an element itself, its `data`.

    Raises:
        KeyError: there is none.
    """
    if key not in sample and "data_samples" in sample:
        sample = sample["data_samples"]
    if key not in sample:
        raise KeyError(f"there is no field {key}, only {', '.join(map(str, sample))}")
    value = sample[key]
    return value["data"] if isinstance(value, Mapping) else value
