"""Batches as the dataloader makes them, and their comparison, for the tests of staging."""

# SPDX-License-Identifier: Apache-2.0
import torch

from segfast.structures import BaseDataElement, PixelData, SegDataSample

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def image(height, width, channels=3, dtype=torch.uint8):
    """As PackSegInputs makes one: the (C, H, W) view of an (H, W, C) array."""
    return torch.randint(0, 200, (height, width, channels)).to(dtype).permute(2, 0, 1)


def sample(height, width, dtype=torch.uint8, **fields):
    label = PixelData(data=torch.randint(0, 5, (1, height, width)).to(dtype))
    return SegDataSample(metainfo={"img_path": "a.png"}, gt_sem_seg=label, **fields)


def make_batch(*sizes, dtype=torch.uint8, label_dtype=torch.uint8, channels=3):
    return {
        "inputs": [image(*size, channels, dtype) for size in sizes],
        "data_samples": [sample(*size, label_dtype) for size in sizes],
    }


def tensors_of(data):
    """All tensors in a result, in order."""
    if isinstance(data, torch.Tensor):
        return [data]
    if isinstance(data, BaseDataElement):
        return [t for _, value in data.items() for t in tensors_of(value)]
    if isinstance(data, dict):
        data = list(data.values())
    return (
        [t for value in data for t in tensors_of(value)] if isinstance(data, (list, tuple)) else []
    )


def assert_same(a, b):
    a, b = tensors_of(a), tensors_of(b)
    assert len(a) == len(b) > 0
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        assert x.stride() == y.stride()
        assert torch.equal(x, y)
