"""SampleKey: an index that also says from which random stream its augmentation is drawn."""

# SPDX-License-Identifier: Apache-2.0
from typing import SupportsIndex

import numpy as np


class SampleKey(int):
    """A dataset index with the seed and the pass over the data it belongs to.

    Samplers yield these instead of plain ints. The augmentation of a sample is drawn from a
    generator seeded with (seed, epoch, index) alone, so it does not depend on which worker process
    loads the sample, on how many there are, or on what was loaded before (a resumed run). The key
    travels to persistent workers with every request; nothing has to be set on the dataset. It is
    an int, so any dataset that takes an index takes a key.

    Args:
        index: position in the dataset.
        epoch: number of the pass over the data.
        seed: seed of the run.
    """

    epoch: int
    seed: int

    def __new__(cls, index: SupportsIndex, epoch: int = 0, seed: int = 0) -> "SampleKey":
        """Make the int and attach the rest."""
        key = super().__new__(cls, index)
        key.epoch = epoch
        key.seed = seed
        return key

    def __sub__(self, offset: int) -> "SampleKey":
        """Stay a key: torch's ConcatDataset subtracts the offset of the dataset it picked."""
        return SampleKey(int(self) - int(offset), self.epoch, self.seed)

    def __reduce__(self) -> tuple:
        """Rebuild from the three numbers on the other side of a worker's queue."""
        return SampleKey, (int(self), self.epoch, self.seed)


def generator_for(index: int, attempt: int = 0) -> np.random.Generator:
    """The generator that draws the augmentation of one sample.

    Args:
        attempt: 0; for the n-th sample that takes the place of an unusable one, n.
        index: a `SampleKey` gives the same stream every time; a plain int one seeded from NumPy's
            global state (which worker processes seed), so that nothing repeats from pass to pass.
    """
    if isinstance(index, SampleKey):
        entropy = (index.seed, index.epoch, int(index), *([attempt] if attempt else []))
        return np.random.default_rng([number % 2**64 for number in entropy])
    return np.random.default_rng(np.random.randint(0, 2**32, size=4, dtype=np.uint64))
