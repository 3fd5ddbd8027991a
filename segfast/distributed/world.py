"""This process's place among those of a run, and small things sent between them; one process alone sends nothing."""

# SPDX-License-Identifier: Apache-2.0

from typing import Any

import torch
import torch.distributed as dist


def world() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) when there is one process only."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return world()[0] == 0


def share(value: Any) -> Any:
    """The first process's value, on all of them; anything that can be pickled."""
    if world()[1] == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gather(value: Any) -> list[Any]:
    """The values of all processes, by rank, on all of them; anything that can be pickled."""
    _, processes = world()
    values: list[Any] = [value] * processes
    if processes > 1:
        dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Go on when all processes have come here."""
    gather(None)


class LateMaximum:
    """The largest number that any process gave one call earlier: it travels while the iteration runs."""

    def __init__(self) -> None:
        """Nothing was given yet."""
        self._work: Any = None
        self._number = torch.zeros((), dtype=torch.int32)

    def __call__(self, number: int) -> int:
        """Give a number; all processes have to, until one call returns something else than 0."""
        found = self.finish()
        if not found:
            self._number = torch.tensor(number, dtype=torch.int32, device=reduce_device())
            self._work = dist.all_reduce(self._number, op=dist.ReduceOp.MAX, async_op=True)
        return found

    def finish(self) -> int:
        """Wait for the last exchange, give nothing more."""
        if self._work is None:
            return 0
        self._work.wait()
        self._work = None
        return int(self._number)


def mean_of_all(values: dict[str, float]) -> dict[str, float]:
    """Each number's mean over the processes that have it, the same on all of them."""
    if world()[1] == 1:
        return values
    parts: dict[str, list[float]] = {}
    for part in gather(values):
        for name, value in part.items():
            parts.setdefault(name, []).append(value)
    return {name: sum(numbers) / len(numbers) for name, numbers in parts.items()}


def reduce_device() -> torch.device:
    """Where a small tensor has to lie for `all_reduce`: on the CPU, unless there is nothing but nccl."""
    on_cuda = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")
