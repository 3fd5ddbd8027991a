"""Faults that a run survives or stops at: samples that were replaced, losses that are not finite.

Both are told where the log waits for the device anyway. Nothing is kept for it from iteration to iteration: the batch
of an iteration is worked out again from the sampler, whose order depends on the seed and the iteration only.
"""

# SPDX-License-Identifier: Apache-2.0

import bisect
import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import BatchSampler

from segfast.datasets import batch_size_of, sampler_of
from segfast.datasets.skips import take_skips
from segfast.distributed import gather, world
from segfast.errors import UserError
from segfast.runner.hooks import Hook
from segfast.runner.message_hub import to_numbers
from segfast.runner.nonfinite import HINT, NonFiniteLossError, SkipNonFinite
from segfast.runner.optim_dict import wrappers

_SHOWN = 8  # files in a message; the log file has all


class Faults:
    """Counts for a run, its checkpoints included.

    Attributes:
        replaced: samples whose place another one took.
        skipped: optimiser steps that were not taken.
    """

    def __init__(self) -> None:
        """None so far."""
        self.replaced = 0
        self._skipped_before = 0  # in the runs that this one resumes
        self._known: set[str] = set()

    def skipped(self, runner: Any) -> int:
        """Optimiser steps that were not taken."""
        return self._skipped_before + sum(p.skipped for p in _policies(runner.optim_wrapper))

    def collect(self, runner: Any) -> None:
        """Count and log the samples that were replaced since the last call, in all processes."""
        reasons = [reason for share in gather(take_skips()) for reason in share]
        if not reasons:
            return
        self.replaced += len(reasons)
        fresh = [r for r in dict.fromkeys(reasons) if r not in self._known]
        self._known.update(fresh)
        for reason in fresh:
            runner.log.file_only(f"replaced by another sample: {reason}")
        first = f", the first: {fresh[0]}" if fresh else ", of the same files as before"
        runner.log.warning(
            f"{len(reasons)} samples could not be used and were replaced by others ({self.replaced} so far){first}"
        )

    def check(self, runner: Any, losses: list[Any]) -> None:
        """Look at the losses of the newest iterations, in all processes.

        Raises:
            NonFiniteLossError: one is not finite, and the policy is to stop.
        """
        shares = gather(to_numbers(losses))
        # The loop may not have counted the last one.
        done = runner.message_hub.get_info("iter", runner.iter) + 1
        first = done - len(shares[0])
        found = [
            (first + i, *_not_finite(values)) for i, values in enumerate(zip(*shares, strict=True))
        ]
        bad = [(iteration, rank, value) for iteration, rank, value in found if rank is not None]
        if not bad:
            return
        if not is_skipping(runner.optim_wrapper):
            iteration = bad[0][0]
            own = shares[world()[0]][iteration - first]
            raise stopped(runner, iteration, own, saved_at=done)
        for iteration, rank, value in bad:
            told = _told(batch_files(runner, iteration, rank))
            runner.log.file_only(f"iteration {iteration + 1}: the loss is {value}, no step: {told}")
        iteration, rank, value = bad[0]
        runner.log.warning(
            f"{len(bad)} iterations with a loss that is not finite took no step ({self.skipped(runner)} so far), the "
            f"first: iteration {iteration + 1}, loss {value}, {_told(batch_files(runner, iteration, rank))}"
        )

    def record(self, runner: Any) -> dict[str, int]:
        """Counts for the metrics file, where there is something to count."""
        counts = {"replaced_samples": self.replaced, "skipped_steps": self.skipped(runner)}
        return {name: count for name, count in counts.items() if count}

    def state_dict(self, runner: Any) -> dict[str, Any]:
        """For a checkpoint."""
        counts = {"replaced_samples": self.replaced, "skipped_steps": self.skipped(runner)}
        return {**counts, "policies": [p.state_dict() for p in _policies(runner.optim_wrapper)]}

    def load_state_dict(self, runner: Any, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.replaced = state.get("replaced_samples", 0)
        self._skipped_before = state.get("skipped_steps", 0)
        policies = _policies(runner.optim_wrapper)
        for policy, saved in zip(policies, state.get("policies", []), strict=False):
            policy.load_state_dict(saved)

    def tell_totals(self, runner: Any) -> None:
        """At the end of training."""
        if self.replaced:
            runner.log.warning(
                f"in all {self.replaced} samples were replaced by others; log.txt names the files"
            )
        if self.skipped(runner):
            runner.log.warning(
                f"in all {self.skipped(runner)} optimiser steps were skipped because the loss was not finite"
            )


def stopped(runner: Any, iteration: int, value: float, saved_at: int) -> NonFiniteLossError:
    """Save the state and word the error.

    Args:
        runner: the Runner.
        iteration: in which the loss was not finite, counted from 0.
        value: the loss in this process; of several processes all call this.
        saved_at: how many iterations the weights have seen; `iteration` where they are those before its step.
    """
    rank, value = _not_finite(gather(value))
    files = batch_files(runner, iteration, rank)
    info = {"iter": iteration + 1, "loss": value, "weights_after_iter": saved_at, "files": files}
    path = Path(runner.work_dir) / f"nonfinite_iter_{iteration + 1}.pth"
    when = "before its step" if saved_at == iteration else f"found after iteration {saved_at}"
    runner.register_hook(_Annotation(info))
    try:
        runner.save_checkpoint(path, step=saved_at, epoch=runner.epoch)
        saved = f"the state ({when}) is in {path}"
    except (OSError, RuntimeError, UserError) as error:
        saved = f"the state could not be saved ({' '.join(str(error).split())})"
    for file in files:
        runner.log.file_only(f"in the batch of iteration {iteration + 1}: {file}")
    return NonFiniteLossError(
        f"the loss became {value} in iteration {iteration + 1}; {_told(files)}; {saved} (hint: {HINT})"
    )


def is_skipping(optim_wrapper: Any) -> bool:
    """Whether steps are skipped where the loss is not finite."""
    return any(isinstance(policy, SkipNonFinite) for policy in _policies(optim_wrapper))


def _not_finite(values: Sequence[float]) -> tuple[int | None, float]:
    """The first process whose loss is not finite, and the loss; None where there is none."""
    rank = next((rank for rank, value in enumerate(values) if not math.isfinite(value)), None)
    return rank, values[rank or 0]


def batch_files(runner: Any, iteration: int, rank: int | None = None) -> list[str]:
    """The images of a batch of training, of one process, worked out again from the sampler.

    Args:
        runner: the Runner.
        iteration: counted from 0.
        rank: of the process; None for this one.

    Returns:
        Paths; `sample N` where a data set has none; nothing where the samplers are none of segfast's and torch's.
    """
    loop, loader = runner.train_loop, runner.train_loop.dataloader
    sampler = sampler_of(loader)
    if not hasattr(sampler, "advance") or type(loader.batch_sampler) is not BatchSampler:
        return []
    sampler = copy.copy(sampler)
    sampler.start, sampler.rank = 0, sampler.rank if rank is None else rank
    if hasattr(sampler, "size"):
        sampler.advance(loop.place(iteration)["samples"])
    else:  # passes over the data rather than one stream
        epoch, place = divmod(iteration, len(loader))
        sampler.set_epoch(epoch)
        sampler.advance(place * loop.samples_per_iter)
    keys = itertools.islice(sampler, batch_size_of(loader))
    return [_file(loader.dataset, int(key)) for key in keys]


def _file(dataset: Any, index: int) -> str:
    """The image of one sample."""
    sizes = getattr(dataset, "cumulative_sizes", None)
    if sizes is not None:  # torch's ConcatDataset
        part = bisect.bisect_right(sizes, index)
        return _file(dataset.datasets[part], index - (sizes[part - 1] if part else 0))
    infos = getattr(dataset, "data_list", None)  # of somebody else's data set it may hold anything
    info = infos[index] if isinstance(infos, Sequence) and index < len(infos) else None
    return (
        str(info["img_path"])
        if isinstance(info, Mapping) and "img_path" in info
        else f"sample {index}"
    )


def _told(files: list[str]) -> str:
    """The images of a batch, in words."""
    if not files:
        return "its images are unknown, the sampler is none of segfast's"
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return f"its images: {', '.join(files[:_SHOWN])}{more}"


def _policies(optim_wrapper: Any) -> list[Any]:
    """The policy of each optimiser; wrappers of other packages have none."""
    return [part.policy for part in wrappers(optim_wrapper) if hasattr(part, "policy")]


class _Annotation(Hook):
    """Adds what happened to the checkpoint that is written about it."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.info = info

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Under `nonfinite`."""
        checkpoint["nonfinite"] = self.info
