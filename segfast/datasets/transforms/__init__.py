"""Pipeline steps: load, resize, crop, flip, pad, distort, pack."""

# SPDX-License-Identifier: Apache-2.0
from segfast.datasets.transforms.base import BaseTransform, Compose
from segfast.datasets.transforms.formatting import PackSegInputs
from segfast.datasets.transforms.geometric import Pad, RandomCrop, RandomFlip
from segfast.datasets.transforms.loading import (
    LoadAnnotations,
    LoadImageFromFile,
    LoadImageFromNDArray,
)
from segfast.datasets.transforms.pack_inputs import PackInputs
from segfast.datasets.transforms.photometric import PhotoMetricDistortion
from segfast.datasets.transforms.random_choice_resize import RandomChoiceResize
from segfast.datasets.transforms.resize import RandomResize, Resize
from segfast.datasets.transforms.resize_to_multiple import ResizeToMultiple
from segfast.datasets.transforms.tta import TestTimeAug

__all__ = [
    "BaseTransform",
    "Compose",
    "LoadAnnotations",
    "LoadImageFromFile",
    "LoadImageFromNDArray",
    "PackInputs",
    "PackSegInputs",
    "Pad",
    "PhotoMetricDistortion",
    "RandomChoiceResize",
    "RandomCrop",
    "RandomFlip",
    "RandomResize",
    "Resize",
    "ResizeToMultiple",
    "TestTimeAug",
]
