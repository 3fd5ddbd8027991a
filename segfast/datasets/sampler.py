"""Samplers: in which order which process visits the data, and how a resumed run finds its place."""

# SPDX-License-Identifier: Apache-2.0
import math
import secrets
from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from segfast.datasets.sample_key import SampleKey
from segfast.distributed import share, world
from segfast.registry import SAMPLERS


class _DistributedSampler(Sampler[SampleKey]):
    """What both samplers share: the data's size, this process's rank, the seed, the order."""

    def __init__(self, dataset: Sized, shuffle: bool, seed: int | None) -> None:
        self.rank, self.world_size = world()
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = share(secrets.randbits(31)) if seed is None else seed
        self.start = 0  # in samples of all processes: a run may resume with more or fewer of them

    def advance(self, num_samples: int) -> None:
        """Move the start of the next iteration on by samples, those of all processes, loading none."""
        self.start += num_samples

    def _order(self, epoch: int) -> list[int]:
        """The order of one pass over the data: a function of (seed, epoch) only."""
        size = len(self.dataset)
        if not self.shuffle:
            return list(range(size))
        generator = torch.Generator()
        generator.manual_seed(self.seed + epoch)
        return torch.randperm(size, generator=generator).tolist()


@SAMPLERS.register_module()
class DefaultSampler(_DistributedSampler):
    """Each pass visits every sample once, shared out among the processes.

    To resume within a pass, call `set_epoch` and `advance`: the next iteration starts there, the
    ones after it at the beginning.

    Args:
        dataset: anything with a length.
        shuffle: draw a new order for each epoch (see `set_epoch`).
        seed: seed of the order; None draws one that all processes share.
        round_up: repeat first samples so that every process gets equally many.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
    ) -> None:
        """Find this process's share."""
        super().__init__(dataset, shuffle, seed)
        self.round_up = round_up
        self.epoch = 0
        self.num_samples = len(range(self.rank, self._end(0), self.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass that the next iteration makes."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[SampleKey]:
        """Keys of this process for one pass."""
        start, self.start = self.start, 0
        epoch = self.epoch
        order = self._order(epoch)
        for position in range(start + self.rank, self._end(start), self.world_size):
            yield SampleKey(order[position % len(order)], epoch, self.seed)

    def __len__(self) -> int:
        """Samples of this process in a whole pass."""
        return self.num_samples

    def _end(self, start: int) -> int:
        """Where a pass that begins at `start` ends, first samples repeated."""
        size = len(self.dataset)
        if not self.round_up or start >= size:
            return size
        return start + math.ceil((size - start) / self.world_size) * self.world_size


@SAMPLERS.register_module()
class InfiniteSampler(_DistributedSampler):
    """Pass after pass without end, for iteration-based training.

    All passes form one stream that is dealt to the processes in turn. To resume, `advance` by the
    number of samples that all processes together have consumed since the start of training.

    Args:
        dataset: anything with a length.
        shuffle: draw a new order for each pass.
        seed: seed of the orders; None draws one that all processes share.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        """Find this process's share."""
        super().__init__(dataset, shuffle, seed)
        self.size = len(dataset)

    def set_epoch(self, epoch: int) -> None:
        """Nothing: the stream counts its own passes."""

    def __iter__(self) -> Iterator[SampleKey]:
        """Keys of this process, from `start` on."""
        if not self.size:
            return
        position = self.start + self.rank
        epoch, offset = divmod(position, self.size)
        while True:
            for index in self._order(epoch)[offset :: self.world_size]:
                yield SampleKey(index, epoch, self.seed)
            taken = -(-(self.size - offset) // self.world_size) if offset < self.size else 0
            offset += taken * self.world_size - self.size
            epoch += 1

    def __len__(self) -> int:
        """Size of the dataset."""
        return self.size
