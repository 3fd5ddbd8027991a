"""Datasets, transforms, samplers and the DataLoader around them; worker processes need no CUDA."""

# SPDX-License-Identifier: Apache-2.0
from segfast.datasets.base import BaseSegDataset
from segfast.datasets.collate import default_collate, pseudo_collate
from segfast.datasets.loader import (
    SegDataLoader,
    batch_size_of,
    build_dataloader,
    sampler_of,
)
from segfast.datasets.sample_key import SampleKey, generator_for
from segfast.datasets.sampler import DefaultSampler, InfiniteSampler
from segfast.datasets.shapes import ShapesDataset, write_shapes
from segfast.datasets.transforms import (
    BaseTransform,
    Compose,
    LoadAnnotations,
    LoadImageFromFile,
    LoadImageFromNDArray,
    PackInputs,
    PackSegInputs,
    Pad,
    PhotoMetricDistortion,
    RandomCrop,
    RandomFlip,
    RandomResize,
    Resize,
    TestTimeAug,
)

__all__ = [
    "BaseSegDataset",
    "BaseTransform",
    "Compose",
    "DefaultSampler",
    "InfiniteSampler",
    "LoadAnnotations",
    "LoadImageFromFile",
    "LoadImageFromNDArray",
    "PackInputs",
    "PackSegInputs",
    "Pad",
    "PhotoMetricDistortion",
    "RandomCrop",
    "RandomFlip",
    "RandomResize",
    "Resize",
    "SampleKey",
    "SegDataLoader",
    "ShapesDataset",
    "TestTimeAug",
    "batch_size_of",
    "build_dataloader",
    "default_collate",
    "generator_for",
    "pseudo_collate",
    "sampler_of",
    "write_shapes",
]
