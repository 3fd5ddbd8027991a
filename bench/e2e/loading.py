"""The step with its data: a plain loop over a DataLoader against segfast's Runner, same pictures, same worker count."""

# SPDX-License-Identifier: Apache-2.0

import tempfile
import time
from typing import Any

import torch
from torch.utils.data import DataLoader

from segfast.bench.e2e.data import Crops
from segfast.bench.e2e.sides import SGD, EagerSide, SegfastSide
from segfast.bench.e2e.syncs import SyncCounter
from segfast.datasets import pseudo_collate
from segfast.runner import Hook, Runner

SKIP, COUNTED = (
    8,
    5,
)  # iterations before the clock starts; iterations whose waits are counted after it stopped


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def eager_ms(side: EagerSide, data: Crops, batch: int, workers: int, iterations: int) -> float:
    """Milliseconds an iteration of the plain loop."""
    loader = DataLoader(
        data, batch, shuffle=True, num_workers=workers, collate_fn=pseudo_collate, drop_last=True
    )
    begin = 0.0
    for index, loaded in enumerate(loader):
        if index == SKIP:
            synchronize(side.device)
            begin = time.perf_counter()
        if index == SKIP + iterations:
            break
        side.train_step(loaded)
    synchronize(side.device)
    return (time.perf_counter() - begin) * 1e3 / iterations


class Stopwatch(Hook):
    """Times `iterations` after the first SKIP, then counts the waits of COUNTED more."""

    priority = "HIGHEST"

    def __init__(self, iterations: int) -> None:
        """Not started."""
        self.iterations = iterations
        self.ms = self._begin = 0.0
        self.counter: SyncCounter | None = None

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Start and stop at the same point of an iteration."""
        if batch_idx == SKIP:
            synchronize(runner.device.type)
            self._begin = time.perf_counter()
        elif batch_idx == SKIP + self.iterations:
            synchronize(runner.device.type)
            self.ms = (time.perf_counter() - self._begin) * 1e3 / self.iterations
            self.counter = SyncCounter(runner.device.type)
            self.counter.__enter__()
        elif batch_idx == SKIP + self.iterations + COUNTED and self.counter is not None:
            self.counter.__exit__(None, None, None)


def runner_ms(
    side: SegfastSide, data: Crops, batch: int, workers: int, iterations: int
) -> tuple[float, float | None]:
    """Milliseconds an iteration of the Runner, and its waits for the device per iteration between two log lines."""
    watch = Stopwatch(iterations)
    last = SKIP + iterations + COUNTED + 1
    with tempfile.TemporaryDirectory() as folder:
        Runner.from_cfg(
            {
                "model": side.model,
                "work_dir": folder,
                "train_dataloader": {"batch_size": batch, "num_workers": workers, "dataset": data},
                "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": last},
                "optim_wrapper": {
                    "type": "AmpOptimWrapper",
                    "dtype": "bfloat16",
                    "optimizer": {"type": "SGD", **SGD},
                },
                "default_hooks": {"checkpoint": {"interval": -1}, "logger": {"interval": last}},
                "custom_hooks": [watch],
                "randomness": {"seed": 0},
                "device": side.device,
                "quiet": True,
            }
        ).train()
    assert watch.counter is not None
    return watch.ms, watch.counter.per(COUNTED)
