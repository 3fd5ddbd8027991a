"""ConcatDataset and RepeatDataset: several data sets as one, or one several times over."""

# SPDX-License-Identifier: Apache-2.0
import bisect
import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch.utils.data

from segfast.datasets.sample_key import SampleKey
from segfast.errors import ConfigError
from segfast.registry import DATASETS


@DATASETS.register_module()
class ConcatDataset(torch.utils.data.Dataset):
    """The samples of several data sets, one behind the other.

    Args:
        datasets: data sets or their configs.
        lazy_init: have them list their files at the first use, or in `full_init()`.
        ignore_keys: keys of the metainfo that need not agree.

    Raises:
        ConfigError: there is none, or their metainfo differs: labels would mean different things.
    """

    def __init__(
        self,
        datasets: Sequence[Mapping | torch.utils.data.Dataset],
        lazy_init: bool = False,
        ignore_keys: str | Sequence[str] | None = None,
    ) -> None:
        """Build them and compare what they say about their classes."""
        if not isinstance(datasets, list | tuple) or not datasets:
            raise ConfigError("datasets", f"expected a list of data sets, got {datasets!r}")
        self.datasets = [
            DATASETS.build(dataset, path=f"datasets.{place}")
            for place, dataset in enumerate(datasets)
        ]
        self.ignore_keys = (
            [ignore_keys] if isinstance(ignore_keys, str) else list(ignore_keys or ())
        )
        self._metainfo = _metainfo(self.datasets[0])
        for place, dataset in enumerate(self.datasets):
            self._compare(_metainfo(dataset), f"datasets.{place}")
        self._ends: list[int] | None = None
        if not lazy_init:
            self.full_init()

    def _compare(self, meta: dict, path: str) -> None:
        for key in sorted({*meta, *self._metainfo} - set(self.ignore_keys)):
            first, own = (_as_lists(found.get(key)) for found in (self._metainfo, meta))
            if first != own:
                problem = f"{key} is {own!r}, but {first!r} in the first data set"
                raise ConfigError(f"{path}.metainfo", f"{problem} (hint: ignore_keys)")

    @property
    def metainfo(self) -> dict[str, Any]:
        """A copy of the first data set's metainfo."""
        return copy.deepcopy(self._metainfo)

    def full_init(self) -> None:
        """Have every data set list its files, unless that was done."""
        if self._ends is None:
            for dataset in self.datasets:
                _full_init(dataset)
            self._ends = list(itertools.accumulate(len(dataset) for dataset in self.datasets))

    @property
    def cumulative_sizes(self) -> list[int]:
        """For each data set, how many samples there are up to its end."""
        self.full_init()
        return list(self._ends or ())

    def __len__(self) -> int:
        """Number of samples of all of them."""
        return self.cumulative_sizes[-1]

    def get_data_info(self, idx: int) -> dict:
        """What the pipeline of a sample's data set starts from."""
        dataset, key = self._find(idx)
        return dataset.get_data_info(key)

    def __getitem__(self, idx: int) -> Any:
        """The sample of that index; its random stream belongs to its place in its data set."""
        dataset, key = self._find(idx)
        return dataset[key]

    def _find(self, idx: int) -> tuple[Any, int]:
        ends = self.cumulative_sizes
        place = _within(idx, ends[-1])
        which = bisect.bisect_right(ends, place)
        return self.datasets[which], _moved(idx, place - (ends[which - 1] if which else 0))


@DATASETS.register_module()
class RepeatDataset(torch.utils.data.Dataset):
    """A data set several times over, so that an epoch is that many passes.

    The k-th repetition is augmented as pass `times * epoch + k` of the data set itself would be.

    Args:
        dataset: the data set or its config.
        times: how often.
        lazy_init: have it list its files at the first use, or in `full_init()`.

    Raises:
        ConfigError: `times` is no positive whole number.
    """

    def __init__(
        self, dataset: Mapping | torch.utils.data.Dataset, times: int, lazy_init: bool = False
    ) -> None:
        """Build it."""
        if not isinstance(times, int) or times < 1:
            raise ConfigError("times", f"expected a positive whole number, got {times!r}")
        self.dataset: Any = DATASETS.build(dataset, path="dataset")
        self.times = times
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict[str, Any]:
        """A copy of the data set's metainfo."""
        return _metainfo(self.dataset)

    def full_init(self) -> None:
        """Have the data set list its files, unless that was done."""
        _full_init(self.dataset)

    def __len__(self) -> int:
        """`times` the number of samples."""
        return self.times * len(self.dataset)

    def get_data_info(self, idx: int) -> dict:
        """What the pipeline starts from."""
        return self.dataset.get_data_info(self._key(idx))

    def __getitem__(self, idx: int) -> Any:
        """The sample of that index, modulo the number of samples."""
        return self.dataset[self._key(idx)]

    def _key(self, idx: int) -> int:
        repetition, place = divmod(_within(idx, len(self)), len(self.dataset))
        if isinstance(idx, SampleKey):
            return SampleKey(place, self.times * idx.epoch + repetition, idx.seed)
        return place


def _metainfo(dataset: Any) -> dict[str, Any]:
    return copy.deepcopy(dict(getattr(dataset, "metainfo", None) or {}))


def _as_lists(value: Any) -> Any:
    """Nested tuples as lists: names from a file are a list, those of a class a tuple."""
    return [_as_lists(part) for part in value] if isinstance(value, list | tuple) else value


def _full_init(dataset: Any) -> None:
    if hasattr(dataset, "full_init"):
        dataset.full_init()


def _within(idx: int, length: int) -> int:
    """An index from the front.

    Raises:
        IndexError: it is out of range.
    """
    place = int(idx) if idx >= 0 else int(idx) + length
    if not 0 <= place < length:
        raise IndexError(f"{int(idx)} is out of range, there are {length} samples")
    return place


def _moved(idx: int, place: int) -> int:
    """The same random stream's key at another place."""
    return SampleKey(place, idx.epoch, idx.seed) if isinstance(idx, SampleKey) else place
