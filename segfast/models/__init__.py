"""Models: preprocessors, the base classes, segmentors, losses, one small built-in network."""

# SPDX-License-Identifier: Apache-2.0
from segfast.models.base import BaseModel
from segfast.models.base_data_preprocessor import BaseDataPreprocessor
from segfast.models.base_segmentor import BaseSegmentor
from segfast.models.data_preprocessor import SegDataPreProcessor
from segfast.models.edit_data_preprocessor import DataPreprocessor
from segfast.models.img_data_preprocessor import ImgDataPreprocessor, stack_batch
from segfast.models.losses import CrossEntropyLoss
from segfast.models.reductions import accuracy, reduce_loss, weight_reduce_loss
from segfast.models.segmentor import Segmentor
from segfast.models.zoo import SegNetS

__all__ = [
    "BaseDataPreprocessor",
    "BaseModel",
    "BaseSegmentor",
    "CrossEntropyLoss",
    "DataPreprocessor",
    "ImgDataPreprocessor",
    "SegDataPreProcessor",
    "SegNetS",
    "Segmentor",
    "accuracy",
    "reduce_loss",
    "stack_batch",
    "weight_reduce_loss",
]
