"""Evaluation: the metric protocol, the evaluator that merges metrics, intersection over union."""

# SPDX-License-Identifier: Apache-2.0
from segfast.evaluation.evaluator import Evaluator, get_metric_value
from segfast.evaluation.iou import IoUMetric
from segfast.evaluation.metric import BaseMetric
from segfast.evaluation.psnr import PSNR, psnr

__all__ = ["PSNR", "BaseMetric", "Evaluator", "IoUMetric", "get_metric_value", "psnr"]
