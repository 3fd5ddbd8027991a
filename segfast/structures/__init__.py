"""Containers that carry one sample's data and its metainfo through the dataflow."""

# SPDX-License-Identifier: Apache-2.0
from segfast.structures.base import BaseDataElement
from segfast.structures.data_sample import DataSample
from segfast.structures.label_data import LabelData
from segfast.structures.pixel_data import PixelData
from segfast.structures.seg_data_sample import SegDataSample

__all__ = ["BaseDataElement", "DataSample", "LabelData", "PixelData", "SegDataSample"]
