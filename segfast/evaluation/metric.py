"""BaseMetric: process batch by batch, then evaluate once, over all processes and without doubles."""

# SPDX-License-Identifier: Apache-2.0
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from segfast.structures import BaseDataElement


def world() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) when there is one process only."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


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
        rank, processes = world()
        results = self.collect(size)
        metrics: list[dict] = [{}]
        if rank == 0:
            numbers = self.compute_metrics(to_cpu(results))
            prefix = f"{self.prefix}/" if self.prefix else ""
            metrics = [{f"{prefix}{name}": value for name, value in numbers.items()}]
        if processes > 1:
            dist.broadcast_object_list(metrics, src=0)
        self.results = []
        return metrics[0]

    def collect(self, size: int) -> list:
        """The entries of all processes in the data set's order, without repeats (on rank 0)."""
        _, processes = world()
        if processes == 1:
            return self.results[:size]
        parts: list[list] = [[] for _ in range(processes)]
        dist.all_gather_object(parts, to_cpu(self.results))
        return interleave(parts)[:size]


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


def reduce_device() -> torch.device:
    """Where a tensor has to lie for `dist.all_reduce`."""
    on_cuda = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")
