"""Evaluator: several metrics over the same predictions; a name that two of them use is an error."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from segfast.evaluation.metric import BaseMetric
from segfast.registry import EVALUATORS, FUNCTIONS, METRICS
from segfast.structures import BaseDataElement


@EVALUATORS.register_module()
class Evaluator:
    """Feeds metrics and merges what they report.

    Args:
        metrics: a metric or its config, or a sequence of them.
    """

    def __init__(self, metrics: Mapping | BaseMetric | Sequence) -> None:
        """Build the metrics."""
        self._dataset_meta: dict | None = None
        if isinstance(metrics, Sequence):
            self.metrics = [METRICS.build(m, path=str(i)) for i, m in enumerate(metrics)]
        else:
            self.metrics = [METRICS.build(metrics)]

    @property
    def dataset_meta(self) -> dict | None:
        """The data set's metainfo; setting it reaches every metric."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict | None) -> None:
        self._dataset_meta = dataset_meta
        for metric in self.metrics:
            metric.dataset_meta = dataset_meta

    def process(self, data_samples: Sequence, data_batch: Any = None) -> None:
        """Hand one batch to every metric.

        Args:
            data_samples: the model's outputs; samples become dicts, once.
            data_batch: the collated batch, as the loader gave it.
        """
        samples = [s.to_dict() if isinstance(s, BaseDataElement) else s for s in data_samples]
        for metric in self.metrics:
            metric.process(data_batch, samples)

    def evaluate(self, size: int) -> dict:
        """The metrics over everything processed.

        Args:
            size: length of the data set.

        Raises:
            ValueError: two metrics report the same name; give one of them a `prefix`.
        """
        merged: dict = {}
        for metric in self.metrics:
            results = metric.evaluate(size)
            for name in results:
                if name in merged:
                    raise ValueError(
                        "There are multiple evaluation results with the same metric name "
                        f"{name} (give one of the metrics a prefix)"
                    )
            merged.update(results)
        return merged

    def offline_evaluate(
        self, data_samples: Iterable, data: Iterable | None = None, chunk_size: int = 1
    ) -> dict:
        """Evaluate stored predictions.

        Args:
            data_samples: samples or dicts.
            data: the matching inputs, if a metric needs them; each chunk is collated as a loader's.
            chunk_size: samples per call of `process`.
        """
        samples, inputs = iter(data_samples), None if data is None else iter(data)
        collate = FUNCTIONS.get("segfast.datasets.pseudo_collate")
        size = 0
        while chunk := list(islice(samples, chunk_size)):
            batch = None if inputs is None else collate(list(islice(inputs, chunk_size)))
            self.process(chunk, batch)
            size += len(chunk)
        return self.evaluate(size)


def get_metric_value(indicator: str, metrics: Mapping[str, Any]) -> Any:
    """The value called `indicator`, with or without its prefix.

    Raises:
        ValueError: none has that name, or several have it under different prefixes.
    """
    if "/" in indicator:
        matches = [name for name in metrics if name == indicator]
    else:
        matches = [name for name in metrics if name.split("/")[-1] == indicator]
    if not matches:
        raise ValueError(f'"{indicator}" can not match any metric in {list(metrics)}')
    if len(matches) > 1:
        raise ValueError(f'"{indicator}" matches multiple metrics {matches}, give the full name')
    return metrics[matches[0]]
