"""build_dataloader: a config's dataloader section becomes a torch DataLoader."""

# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from segfast.datasets.skips import note_skips, take_skips
from segfast.datasets.worker_start import WorkerStart
from segfast.distributed import world
from segfast.errors import ConfigError, UserError
from segfast.registry import DATASETS, FUNCTIONS, SAMPLERS, did_you_mean

_OWN_KEYS = ("num_batch_per_epoch",)
_WORKER_KEYS = ("persistent_workers", "prefetch_factor", "timeout", "multiprocessing_context")


@dataclasses.dataclass
class _Failure:
    """A user's error on its way from a worker process, in place of the batch."""

    error: UserError


@dataclasses.dataclass
class _Replaced:
    """A batch some of whose samples took the place of unusable ones, with the reasons."""

    batch: Any
    reasons: list[str]


class _Guard(Dataset):
    """The dataset as worker processes see it: a `UserError` is a value."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except UserError as error:
            return _Failure(error)


class _Collate:
    """The collate function as worker processes see it: a failure takes the place of the batch.

    What was skipped on the way to the batch travels with it.
    """

    def __init__(self, collate_fn: Callable | None) -> None:
        self.collate_fn = collate_fn

    def __call__(self, samples: Any) -> Any:
        reasons = take_skips()
        batch = self._batch(samples)
        return _Replaced(batch, reasons) if reasons else batch

    def _batch(self, samples: Any) -> Any:
        for sample in samples if isinstance(samples, list) else [samples]:
            if isinstance(sample, _Failure):
                return sample
        try:
            return self.collate_fn(samples) if self.collate_fn else samples
        except UserError as error:
            return _Failure(error)


class _Batches:
    """Iterates over batches and raises the failures among them."""

    def __init__(self, batches: Iterator) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        batch = next(self.batches)
        try:
            if isinstance(batch, _Replaced):
                note_skips(batch.reasons)
                batch = batch.batch
            if isinstance(batch, _Failure):
                raise batch.error
            return batch
        finally:
            # The error's traceback holds this frame. Were the error held by the frame in turn, the
            # workers would have to wait for the cycle collector, and it for them (5 s each).
            del batch


class SegDataLoader(DataLoader):
    """A DataLoader that hands on a `UserError` from a worker process as it was raised.

    torch wraps an exception from a worker in its whole traceback; ours are one line for the user.
    """

    def __init__(self, dataset: Dataset, **options: Any) -> None:
        """Take what `torch.utils.data.DataLoader` takes."""
        super().__init__(dataset, **options)
        self._inner: DataLoader | None = None
        if self.num_workers > 0 and not isinstance(dataset, IterableDataset):
            guarded = {**options, "collate_fn": _Collate(self.collate_fn)}
            self._inner = DataLoader(_Guard(dataset), **guarded)

    def close(self) -> None:
        """End the workers that wait for another pass; one that begins later starts new ones.

        A process that ends with workers alive kills them, which torch reports as their failure.
        """
        if self._inner is not None:
            self._inner._iterator = None

    def __iter__(self) -> Any:
        """Start (or restart) the workers and iterate over the batches."""
        if self._inner is None:
            return super().__iter__()
        return _Batches(iter(self._inner))


def build_dataloader(
    cfg: Mapping | DataLoader,
    *,
    seed: int | None = None,
    path: str = "",
    default_sampler: str | Mapping = "DefaultSampler",
) -> DataLoader:
    """Build a DataLoader from a config.

    Args:
        cfg: `dataset` (config or object), `sampler`, `batch_sampler`, `batch_size` (1),
            `num_workers` (0), `persistent_workers` (True), `collate_fn` (pseudo_collate),
            `worker_init_fn`, `num_batch_per_epoch` (only the samples of so many batches are
            used); any other argument of torch's DataLoader. A DataLoader is returned as it is.
        seed: seed of the sampler and, with the rank, of the workers.
        path: dotted path of `cfg` in the config, for messages.
        default_sampler: the sampler where `cfg` has none: a type, or a config.

    Raises:
        ConfigError: unknown or missing keys, or values that do not fit.
        DataError: the dataset cannot be used.
    """
    if isinstance(cfg, DataLoader):
        return cfg
    options = _checked(cfg, path)
    dataset = DATASETS.build(options.pop("dataset"), path=_join(path, "dataset"))
    limit = options.pop("num_batch_per_epoch", None)
    if limit is not None:
        dataset = _FirstSamples(dataset, limit * options["batch_size"] * world()[1])
    samplers = {key: options.pop(key, None) for key in ("sampler", "batch_sampler")}
    if not isinstance(dataset, IterableDataset):
        samplers["sampler"] = samplers["sampler"] or default_sampler
        batch_size = options.pop("batch_size")
        options.update(_build_samplers(samplers, dataset, batch_size, seed, path))
    for key in ("collate_fn", "worker_init_fn"):
        options[key] = _build_function(options.get(key), _join(path, key))
    options["worker_init_fn"] = WorkerStart(options["worker_init_fn"])
    if seed is not None:
        options.setdefault("generator", torch.Generator().manual_seed(seed + world()[0]))
    try:
        return SegDataLoader(dataset, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(path, " ".join(str(error).split())) from error


def sampler_of(dataloader: Any) -> Any:
    """Who chooses the samples: beside a batch sampler, torch's own `sampler` is a stand-in that nobody asks."""
    inner = getattr(getattr(dataloader, "batch_sampler", None), "sampler", None)
    return getattr(dataloader, "sampler", None) if inner is None else inner


def batch_size_of(dataloader: Any) -> int:
    """Samples of a batch, as the loader or its batch sampler has it; 1 where neither says."""
    sampler = getattr(dataloader, "batch_sampler", None)
    return dataloader.batch_size or getattr(sampler, "batch_size", None) or 1


class _FirstSamples(Dataset):
    """The first samples of a dataset; everything else about it shows through."""

    def __init__(self, dataset: Dataset, limit: int) -> None:
        self.dataset = dataset
        self.size = min(limit, len(dataset))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "dataset":  # not there yet while unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _checked(cfg: Mapping, path: str) -> dict:
    """The options, with defaults, after a look at every key."""
    if not isinstance(cfg, Mapping):
        raise ConfigError(path, f"expected dict(dataset=..., batch_size=...), got {cfg!r}")
    known = {*_OWN_KEYS, *inspect.signature(DataLoader.__init__).parameters} - {"self", "shuffle"}
    for key in cfg:
        if key not in known:
            hint = did_you_mean(key, known)
            if key == "shuffle":
                hint = " (say it to the sampler: sampler=dict(type='DefaultSampler', shuffle=True))"
            raise ConfigError(_join(path, key), f"a dataloader has no such option{hint}")
    if cfg.get("dataset") is None:
        raise ConfigError(_join(path, "dataset"), "missing, the dataloader needs a dataset")
    options = {"batch_size": 1, "num_workers": 0, "collate_fn": "pseudo_collate", **cfg}
    for key, least in (("batch_size", 1), ("num_workers", 0)):
        value = options[key]
        if not isinstance(value, int) or value < least:
            problem = f"expected a whole number of at least {least}, got {value!r}"
            raise ConfigError(_join(path, key), problem)
    if options["num_workers"] > 0:
        options.setdefault("persistent_workers", True)
    else:
        options = {key: value for key, value in options.items() if key not in _WORKER_KEYS}
    return options


def _build_samplers(
    samplers: dict, dataset: Dataset, batch_size: int, seed: int | None, path: str
) -> dict:
    """DataLoader arguments `sampler` and `batch_size`, or `batch_sampler`."""
    cfg = samplers["sampler"]
    if isinstance(cfg, str):
        cfg = {"type": cfg}
    if isinstance(cfg, Mapping):
        cfg = {"seed": seed, **cfg} if _takes_seed(cfg) else cfg
    sampler = SAMPLERS.build(cfg, path=_join(path, "sampler"), dataset=dataset)
    if samplers["batch_sampler"] is None:
        return {"sampler": sampler, "batch_size": batch_size}
    batch_sampler = SAMPLERS.build(
        samplers["batch_sampler"],
        path=_join(path, "batch_sampler"),
        sampler=sampler,
        batch_size=batch_size,
        drop_last=False,
    )
    return {"batch_sampler": batch_sampler}


def _takes_seed(cfg: Mapping) -> bool:
    """Whether the sampler has a seed: our own do, those of others may not."""
    kind = cfg.get("type")
    if isinstance(kind, str):
        kind = SAMPLERS.get(kind) if kind in SAMPLERS else None
    return kind is not None and "seed" in inspect.signature(kind).parameters


def _build_function(cfg: Any, path: str) -> Callable | None:
    """A function by name, by config with some of its arguments set, or as it is."""
    if cfg is None or callable(cfg):
        return cfg
    arguments = dict(cfg) if isinstance(cfg, Mapping) else {"type": cfg}
    target = arguments.pop("type", None)
    if isinstance(target, str):
        try:
            target = FUNCTIONS.get(target)
        except ConfigError as error:
            raise error.under(path) from None
    if not callable(target):
        raise ConfigError(path, f"expected a function's name or dict(type=...), got {cfg!r}")
    return functools.partial(target, **arguments) if arguments else target


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
