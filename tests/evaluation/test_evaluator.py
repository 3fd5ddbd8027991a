"""Evaluator and BaseMetric: conversion, merging, prefixes, truncation, offline evaluation."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from segfast.errors import ConfigError
from segfast.evaluation import BaseMetric, Evaluator, IoUMetric, get_metric_value
from segfast.evaluation.metric import interleave, to_cpu
from segfast.registry import EVALUATORS
from segfast.structures import PixelData, SegDataSample


class Count(BaseMetric):
    """Reports how many entries there were, and keeps what `process` saw."""

    def __init__(self, name="count", **options):
        super().__init__(**options)
        self.name, self.seen = name, []

    def process(self, data_batch, data_samples):
        self.seen.append((data_batch, data_samples))
        self.results += [1] * len(data_samples)

    def compute_metrics(self, results):
        return {self.name: len(results)}


class Prefixed(Count):
    default_prefix = "default"


def make_sample():
    label = PixelData(data=torch.zeros(1, 2, 2))
    return SegDataSample(metainfo={"img_path": "a.png"}, gt_sem_seg=label)


def test_samples_become_dicts_once_and_reach_every_metric():
    evaluator = Evaluator([Count("a"), Count("b")])
    evaluator.process(data_samples=[make_sample(), {"plain": 1}], data_batch="batch")
    first, second = (metric.seen[0] for metric in evaluator.metrics)
    assert first[0] == "batch"
    assert first[1] is second[1]
    assert first[1][0]["img_path"] == "a.png"
    assert first[1][0]["gt_sem_seg"]["data"].shape == (1, 2, 2)
    assert first[1][1] == {"plain": 1}
    assert evaluator.evaluate(2) == {"a": 2, "b": 2}


def test_equal_names_are_an_error_and_prefixes_the_way_out():
    evaluator = Evaluator([Count(), Count()])
    evaluator.process([{}])
    with pytest.raises(
        ValueError, match="There are multiple evaluation results with the same metric name"
    ):
        evaluator.evaluate(1)
    evaluator = Evaluator([Count(prefix="x"), Prefixed(), Prefixed(prefix="y")])
    evaluator.process([{}])
    assert evaluator.evaluate(1) == {"x/count": 1, "default/count": 1, "y/count": 1}


def test_results_are_cut_to_the_data_set_and_cleared():
    metric = Count()
    metric.process(None, [{}] * 5)
    assert metric.evaluate(3) == {"count": 3}
    with pytest.warns(UserWarning, match="nothing to evaluate"):
        assert metric.evaluate(3) == {"count": 0}


def test_parts_of_several_processes_are_dealt_back_in_order():
    assert interleave([[0, 2, 4], [1, 3]]) == [0, 1, 2, 3, 4]
    assert interleave([]) == []


def test_dataset_meta_fans_out():
    evaluator = Evaluator([Count("a"), Count("b")])
    evaluator.dataset_meta = {"classes": ("x",)}
    assert evaluator.dataset_meta == {"classes": ("x",)}
    assert all(metric.dataset_meta == {"classes": ("x",)} for metric in evaluator.metrics)


def test_offline_evaluation_takes_chunks():
    evaluator = Evaluator(Count())
    assert evaluator.offline_evaluate([{}] * 5, data=range(5), chunk_size=2) == {"count": 5}
    assert [batch for batch, _ in evaluator.metrics[0].seen] == [[0, 1], [2, 3], [4]]


def test_metrics_come_from_configs():
    assert isinstance(Evaluator({"type": "IoUMetric"}).metrics[0], IoUMetric)
    cfg = {"type": "Evaluator", "metrics": [{"type": "IoUMetric", "prefix": "a"}]}
    assert EVALUATORS.build(cfg).metrics[0].prefix == "a"
    with pytest.raises(ConfigError, match=r"^iou_metric: .*did you mean iou_metrics"):
        Evaluator({"type": "IoUMetric", "iou_metric": "mIoU"})
    with pytest.raises(ConfigError, match=r"^1\.type: .*IoUMetric"):
        Evaluator([{"type": "IoUMetric"}, {"type": "IouMetrik"}])
    with pytest.raises(ValueError, match="collect_dir"):
        Count(collect_device="gpu", collect_dir="x")


def test_get_metric_value():
    metrics = {"a/mIoU": 1, "b/mIoU": 2, "mAcc": 3}
    assert get_metric_value("mAcc", metrics) == 3
    assert get_metric_value("b/mIoU", metrics) == 2
    with pytest.raises(ValueError, match="can not match any metric"):
        get_metric_value("mDice", metrics)
    with pytest.raises(ValueError, match="matches multiple metrics"):
        get_metric_value("mIoU", metrics)


def test_to_cpu_walks_nested_results():
    moved = to_cpu({"a": [torch.ones(1), (make_sample(), 3)]})
    assert moved["a"][1][1] == 3
    assert moved["a"][1][0].img_path == "a.png"
