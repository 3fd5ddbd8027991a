"""Datasets, transforms, samplers and the DataLoader around them; worker processes need no CUDA."""

# SPDX-License-Identifier: Apache-2.0
from segfast.datasets.ade import ADE20KDataset
from segfast.datasets.base import BaseSegDataset
from segfast.datasets.cityscapes import CityscapesDataset
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
    RandomChoiceResize,
    RandomCrop,
    RandomFlip,
    RandomResize,
    Resize,
    ResizeToMultiple,
    TestTimeAug,
)
from segfast.datasets.voc import PascalVOCDataset
from segfast.datasets.wrappers import ConcatDataset, RepeatDataset

__all__ = [
    "ADE20KDataset",
    "BaseSegDataset",
    "BaseTransform",
    "CityscapesDataset",
    "Compose",
    "ConcatDataset",
    "DefaultSampler",
    "InfiniteSampler",
    "LoadAnnotations",
    "LoadImageFromFile",
    "LoadImageFromNDArray",
    "PackInputs",
    "PackSegInputs",
    "Pad",
    "PascalVOCDataset",
    "PhotoMetricDistortion",
    "RandomChoiceResize",
    "RandomCrop",
    "RandomFlip",
    "RandomResize",
    "RepeatDataset",
    "Resize",
    "ResizeToMultiple",
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
