"""BaseMetric: process batch by batch, then evaluate once, over all processes and without doubles."""

# SPDX-License-Identifier: Apache-2.0
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from segfast.distributed import gather, is_first, share, world
from segfast.errors import UserError
from segfast.structures import BaseDataElement


class BaseMetric(ABC):
    """A metric over a data set.

    `process` appends to `self.results`, one entry per sample; `compute_metrics` turns the entries of
    all processes into numbers.

    Args:
        collect_device: "cpu" or "gpu"; kept for MMEngine's configs, entries travel as CPU objects.
        prefix: put before every name, `prefix/name`.
        collect_dir: kept for MMEngine's configs; nothing is written.
    """

    default_prefix: str | None = None

    def __init__(
        self,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        """Check the settings.

        Raises:
            ValueError: `collect_dir` with another device than the CPU.
        """
        if collect_dir is not None and collect_device != "cpu":
            raise ValueError('collect_dir could only be used with collect_device="cpu"')
        self.collect_device = collect_device
        self.collect_dir = collect_dir
        self.prefix = prefix or self.default_prefix
        self.results: list[Any] = []
        self._dataset_meta: dict | None = None

    @property
    def dataset_meta(self) -> dict | None:
        """The data set's metainfo: `classes`, `palette`, ..."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict | None) -> None:
        self._dataset_meta = dataset_meta

    @abstractmethod
    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take in one batch.

        Args:
            data_batch: the collated batch, as the loader gave it.
            data_samples: the model's outputs as dicts.
        """

    @abstractmethod
    def compute_metrics(self, results: list) -> dict:
        """Entries of all processes -> numbers by name."""

    def evaluate(self, size: int) -> dict:
        """Compute the metrics over everything processed, and start afresh.

        Args:
            size: length of the data set. Samplers that deal every process the same number of samples
                repeat some at the end; entries beyond `size` are those and are dropped.

        Returns:
            Numbers by name, the same on every process.
        """
        if not self.results:
            warnings.warn(
                f"{type(self).__name__} has nothing to evaluate: was `process` called?",
                stacklevel=2,
            )
        results, metrics = self.collect(size), {}
        if is_first():
            numbers = self.compute_metrics(to_cpu(results))
            prefix = f"{self.prefix}/" if self.prefix else ""
            metrics = {f"{prefix}{name}": value for name, value in numbers.items()}
        self.results = []
        return share(metrics)

    def collect(self, size: int) -> list:
        """The entries of all processes in the data set's order, without repeats."""
        if world()[1] == 1:
            return self.results[:size]
        parts = gather(to_cpu(self.results))
        check_shares(sum(len(part) for part in parts), size)
        return interleave(parts)[:size]


def check_shares(entries: int, size: int) -> None:
    """Refuse to count samples that several processes have all seen.

    Raises:
        UserError: there are more entries than a sampler repeats to give every process equally many.
    """
    processes = world()[1]
    if entries >= size + processes:
        raise UserError(
            f"{processes} processes evaluated {entries} samples of a data set of {size}: its sampler gives all of them "
            "the same ones (hint: sampler=dict(type='DefaultSampler', shuffle=False))"
        )


def interleave(parts: Sequence[Sequence]) -> list:
    """Deal entries back: first of every part, second of every part, ..."""
    longest = max((len(part) for part in parts), default=0)
    return [part[i] for i in range(longest) for part in parts if i < len(part)]


def to_cpu(data: Any) -> Any:
    """Move every tensor in nested dicts, lists, tuples and samples to the CPU."""
    if isinstance(data, (Tensor, BaseDataElement)):
        return data.to("cpu")
    if isinstance(data, Mapping):
        return {key: to_cpu(value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(to_cpu(value) for value in data))
    if isinstance(data, (list, tuple)):
        return type(data)(to_cpu(value) for value in data)
    return data
