"""Prefetching: the next batch leaves for the device while this one computes."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.utils.data import DataLoader

_END = object()


def fetch_ahead(
    dataloader: DataLoader, model: Any, enabled: bool = True
) -> AbstractContextManager[Iterable[Any]]:
    """A context around an iterable: the dataloader itself, or a `Prefetcher` where one is of use.

    That is where the model's preprocessor stages for a GPU and worker processes make the samples. Without workers this
    process makes them, with code that may draw from its random generators: fetching ahead would draw before the step
    and its checkpoint what belongs behind them, and a resumed run would differ.

    Args:
        dataloader: the data.
        model: its `data_preprocessor` stages, if it can.
        enabled: False for the dataloader itself in any case.
    """
    preprocessor = getattr(model, "data_preprocessor", None)
    if not enabled or getattr(preprocessor, "ring", None) is None or dataloader.num_workers == 0:
        return nullcontext(dataloader)
    return Prefetcher(dataloader, preprocessor.stage)  # type: ignore[union-attr]


class Prefetcher:
    """Iterates over batches; a thread fetches and stages the next one while the present one is in use.

    The thread waits for the workers, packs and starts the copy, most of it without the interpreter lock. It starts on
    batch i + 1 when batch i is handed out, and is then done until batch i + 1 is: never more than one ahead. What goes
    wrong with a batch is raised when its turn comes. Leaving the context waits for the fetch that is under way.

    Args:
        dataloader: iterated over once per `iter`, as without a prefetcher.
        stage: `f(batch)`; what it returns is kept until the following batch is asked for.
    """

    def __init__(self, dataloader: Iterable[Any], stage: Callable[[Any], Any]) -> None:
        """Start nothing yet."""
        self.dataloader, self.stage = dataloader, stage
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="segfast-prefetch")

    def __enter__(self) -> "Prefetcher":
        """The iterable."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Any]:
        """Start (or restart) the dataloader here, fetch from it in the thread."""
        batches = iter(self.dataloader)
        ahead = self._thread.submit(self._fetch, batches)
        while True:
            try:
                batch, flight = ahead.result()
            finally:
                del ahead  # see datasets.loader: no cycle of an error and a frame that holds it
            if batch is _END:
                return
            ahead = self._thread.submit(self._fetch, batches)
            yield batch
            del batch, flight

    def _fetch(self, batches: Iterator[Any]) -> tuple[Any, Any]:
        """The next batch and what keeps it on its way."""
        batch = next(batches, _END)
        return batch, None if batch is _END else self.stage(batch)
