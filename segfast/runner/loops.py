"""The training loops: short enough to recite. Each takes its dataloader and drives the runner's model and hooks."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from typing import Any

from torch.utils.data import DataLoader

from segfast.datasets import batch_size_of, sampler_of
from segfast.distributed import gather, world
from segfast.models.distributed import unwrapped
from segfast.registry import LOOPS
from segfast.runner.checkpoint import random_state, set_random_state
from segfast.runner.faults import stopped
from segfast.runner.nonfinite import NonFiniteLossError
from segfast.runner.prefetch import fetch_ahead


class _TrainLoop:
    """What both training loops share."""

    by_epoch = False  # what its steps are: epochs or iterations

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader,
        val_begin: int,
        val_interval: int,
        prefetch: bool = True,
        dynamic_intervals: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        # Of val_interval, to come: (step, interval from there on).
        self._changes = [tuple(pair) for pair in dynamic_intervals or []]
        intervals = [val_interval, *(interval for _, interval in self._changes)]
        if any(interval < 1 for interval in intervals):
            raise ValueError(f"expected val_interval >= 1, got {intervals}")
        if self._changes != sorted(self._changes):
            raise ValueError(f"expected dynamic_intervals in order, got {dynamic_intervals}")
        lengths = gather(len(dataloader))
        if len(set(lengths)) > 1:
            raise ValueError(
                f"the processes have {', '.join(map(str, lengths))} batches (hint: a sampler with round_up=True)"
            )
        if len(dataloader) == 0:
            raise ValueError(
                f"the training data has {len(dataloader.dataset)} samples, fewer than one batch with drop_last"  # type: ignore[arg-type]
            )
        self.runner, self.dataloader = runner, dataloader
        self.val_begin, self.val_interval, self.prefetch = val_begin, val_interval, prefetch
        self.epoch = 0
        self.iter = 0
        self.passes = 0  # over the data that are complete
        # An iteration, and how many samples of the pass had been taken before it.
        self._mark = (0, 0)
        self.validated = 0  # the step whose validation was the last to be finished
        self.stop_training = False  # EarlyStoppingHook sets it

    def _step(self, batch_idx: int, data_batch: Any) -> None:
        """One iteration: before_train_iter, train_step, after_train_iter."""
        self.runner.call_hook("before_train_iter", batch_idx=batch_idx, data_batch=data_batch)
        try:
            outputs = self.runner.model.train_step(
                data_batch, optim_wrapper=self.runner.optim_wrapper
            )
        except NonFiniteLossError as error:
            raise stopped(self.runner, self.iter, error.value, saved_at=self.iter) from None
        self.runner.call_hook(
            "after_train_iter", batch_idx=batch_idx, data_batch=data_batch, outputs=outputs
        )
        self.iter += 1
        self.runner.stop.check()

    def _ahead(self) -> AbstractContextManager[Iterable[Any]]:
        """The dataloader for one pass, prefetching where that is of use."""
        return fetch_ahead(self.dataloader, unwrapped(self.runner.model), self.prefetch)

    @property
    def samples_per_iter(self) -> int:
        """Of all processes together."""
        return batch_size_of(self.dataloader) * world()[1]

    def place(self, iteration: int) -> dict[str, int]:
        """Where in the data an iteration of the present pass begins: `passes` before it, `samples` of it."""
        at, samples = self._mark
        taken = samples + (iteration - at) * self.samples_per_iter
        return {"passes": self.passes, "samples": taken, "per_iter": self.samples_per_iter}

    def go_on_from(self, meta: Mapping[str, Any]) -> None:
        """Stand where a checkpoint was written, perhaps by other processes or with other batches."""
        self.iter, self.epoch = meta["iter"], meta["epoch"]
        self.validated = meta.get("validated", 0)
        batches = self.iter - self.epoch * len(self.dataloader) if self.by_epoch else self.iter
        place = meta.get(
            "place", {"passes": self.epoch, "samples": batches * self.samples_per_iter}
        )
        self.passes, self._mark = place["passes"], (self.iter, place["samples"])

    def _advance(self) -> None:
        """Move the sampler past what a resumed run has seen; nothing is loaded."""
        sampler, samples = sampler_of(self.dataloader), self._mark[1]
        if samples and hasattr(sampler, "advance"):
            sampler.advance(samples)
        elif samples:
            self.runner.log.warning(
                f"{type(sampler).__name__} cannot go on within its pass over the data: the pass begins anew, the run "
                "will differ from one that was not interrupted (hint: DefaultSampler or InfiniteSampler)"
            )

    def _validate(self, step: int, last: bool) -> bool:
        """Validate every `val_interval` steps from `val_begin` on, and at the end; whether it was due.

        A run that resumes asks for the step where it goes on: what interrupted it may have been in this validation.
        The random streams of training are left as they were, whatever the validation draws.
        """
        if step < self.val_begin or step == self.validated:
            return False
        while self._changes and step + 1 >= self._changes[0][0]:
            self.val_interval = self._changes.pop(0)[1]
        due = step % self.val_interval == 0 or last
        if due and self.runner.val_loop is not None:
            before, self.validated, random = self.validated, step, random_state()
            try:
                self.runner.val_loop.run()
            except BaseException:
                self.validated = before
                raise
            finally:
                set_random_state(random)
        return due


@LOOPS.register_module()
class EpochBasedTrainLoop(_TrainLoop):
    """Train for `max_epochs` passes over the data.

    Args:
        runner: the Runner.
        dataloader: the training data.
        max_epochs: passes.
        val_begin: the first epoch that is validated.
        val_interval: epochs between validations; the last epoch always is.
        prefetch: on CUDA, fetch the next batch from the workers and send it while this one computes.
        dynamic_intervals: pairs (epoch, val_interval from there on).
    """

    by_epoch = True

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        prefetch: bool = True,
        dynamic_intervals: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Count the iterations."""
        super().__init__(runner, dataloader, val_begin, val_interval, prefetch, dynamic_intervals)
        self.max_epochs, self.max_iters = max_epochs, max_epochs * len(dataloader)

    def run(self) -> None:
        """From the present epoch and iteration to the end."""
        self.runner.call_hook("before_train")
        self._validate(self.epoch, last=self.epoch == self.max_epochs)
        while self.epoch < self.max_epochs and not self.stop_training:
            self._run_epoch()
            self._validate(self.epoch, last=self.epoch == self.max_epochs)
        self.runner.call_hook("after_train")

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """One iteration with batch `idx` of the epoch, for subclasses to override."""
        self._step(idx, data_batch)

    def go_on_from(self, meta: Mapping[str, Any]) -> None:
        """As every loop; the iterations to come may have become more, or fewer."""
        super().go_on_from(meta)
        place = meta.get("place")
        if place and place["per_iter"] != self.samples_per_iter:
            done = place["samples"] // self.samples_per_iter
            self.max_iters = (
                self.iter + (self.max_epochs - self.epoch) * len(self.dataloader) - done
            )

    def _run_epoch(self) -> None:
        """The rest of one pass."""
        self.runner.call_hook("before_train_epoch")
        self._advance()
        self.runner.model.train()
        done = self._mark[1] // self.samples_per_iter
        with self._ahead() as batches:
            for batch_idx, data_batch in enumerate(batches, start=done):
                self.run_iter(batch_idx, data_batch)
        self.passes, self._mark = self.passes + 1, (self.iter, 0)
        self.runner.call_hook("after_train_epoch")
        self.epoch += 1


@LOOPS.register_module()
class IterBasedTrainLoop(_TrainLoop):
    """Train for `max_iters` iterations, going over the data as often as that takes.

    Args:
        runner: the Runner.
        dataloader: the training data.
        max_iters: iterations.
        val_begin: the first iteration that may be validated.
        val_interval: iterations between validations; the last iteration always is.
        prefetch: on CUDA, fetch the next batch from the workers and send it while this one computes.
        dynamic_intervals: pairs (iteration, val_interval from there on).
    """

    max_epochs = 1

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        prefetch: bool = True,
        dynamic_intervals: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Take the length."""
        super().__init__(runner, dataloader, val_begin, val_interval, prefetch, dynamic_intervals)
        self.max_iters = max_iters

    def run(self) -> None:
        """From the present iteration to the end; hooks see one endless epoch."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        self._validate(self.iter, last=self.iter == self.max_iters)
        self.runner.model.train()
        with closing(self._batches()) as batches:
            while self.iter < self.max_iters and not self.stop_training:
                self.run_iter(next(batches))
                if self._validate(self.iter, last=self.iter == self.max_iters):
                    self.runner.model.train()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")

    def run_iter(self, data_batch: Any) -> None:
        """One iteration, for subclasses to override."""
        self._step(self.iter, data_batch)

    def _batches(self) -> Generator[Any, None, None]:
        """Batches without end; an infinite sampler never needs the restart."""
        self._advance()
        while True:
            sampler = sampler_of(self.dataloader)
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(self.passes)
            with self._ahead() as batches:
                yield from batches
            self.passes, self._mark = self.passes + 1, (self.iter, 0)
