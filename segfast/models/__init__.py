"""Models: preprocessors, the base classes, segmentors, losses, one small built-in network."""

# SPDX-License-Identifier: Apache-2.0
from segfast.models.base import BaseModel
from segfast.models.data_preprocessor import BaseDataPreprocessor, SegDataPreProcessor
from segfast.models.img_data_preprocessor import ImgDataPreprocessor, stack_batch

__all__ = [
    "BaseDataPreprocessor",
    "BaseModel",
    "ImgDataPreprocessor",
    "SegDataPreProcessor",
    "stack_batch",
]
