"""What the Runner costs: its training loop against a loop written by hand, on a model that computes next to nothing.

Both sides draw the same samples through a DataLoader, stack them, run the same layer and take the same optimiser step.
The Runner adds what a user gets with the default settings: hooks, timing, the learning rate's schedule, averaged
losses, a log line every ten iterations, the progress bar. Saving and validating are no part of an iteration.
"""

# SPDX-License-Identifier: Apache-2.0

import contextlib
import os
import statistics
import tempfile
import time
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from segfast.datasets import pseudo_collate
from segfast.models import BaseModel
from segfast.runner import Hook, Runner

BATCH = 2
SKIP = 50  # iterations before the clock starts
ITERATIONS = 500  # a multiple of the log interval


class Points(Dataset):
    """x in R^2 -> x_0 + x_1, made in advance."""

    metainfo: ClassVar = {"classes": ("value",)}

    def __init__(self) -> None:
        """Make the points."""
        self.points = [{"inputs": x, "data_samples": x.sum()} for x in torch.randn(64, 2).unbind()]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.points[index]


class LinearModel(BaseModel):
    """One linear layer, a squared error."""

    def __init__(self) -> None:
        """Make the layer."""
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        """The loss, whatever the mode: nothing else is asked for here."""
        error = self.layer(torch.stack(inputs)).squeeze(1) - torch.stack(data_samples)
        return {"loss": error.square().mean()}


class Stopwatch(Hook):
    """Wall-clock seconds of ITERATIONS iterations after the first SKIP."""

    priority = "HIGHEST"

    def __init__(self) -> None:
        """Not started."""
        self.seconds = self._start = 0.0

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Start, and stop, at the same point of an iteration."""
        if batch_idx == SKIP:
            self._start = time.perf_counter()
        elif batch_idx == SKIP + ITERATIONS:
            self.seconds = time.perf_counter() - self._start


def runner_seconds() -> float:
    """ITERATIONS iterations of segfast's training."""
    watch = Stopwatch()
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        Runner.from_cfg(
            {
                "model": LinearModel(),
                "work_dir": folder,
                "train_dataloader": {"batch_size": BATCH, "dataset": Points()},
                "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": SKIP + ITERATIONS + 1},
                "default_hooks": {"checkpoint": {"interval": -1}},
                "custom_hooks": [watch],
                "randomness": {"seed": 0},
                "device": "cpu",
            }
        ).train()
    return watch.seconds


def bare_seconds() -> float:
    """ITERATIONS iterations of a loop written by hand."""
    model = LinearModel()
    options = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005}
    optimizer = torch.optim.SGD(model.parameters(), **options)
    loader = DataLoader(Points(), batch_size=BATCH, shuffle=True, collate_fn=pseudo_collate)
    done, start = 0, 0.0
    while True:
        for batch in loader:
            if done == SKIP:
                start = time.perf_counter()
            elif done == SKIP + ITERATIONS:
                return time.perf_counter() - start
            loss = model(**batch)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1


def measure_runner(rounds: int) -> dict[str, Any]:
    """Both loops in turns; medians in microseconds an iteration, spreads from the 20th to the 80th percentile."""
    bare_seconds(), runner_seconds()
    times_us: dict[str, list[float]] = {"bare": [], "runner": [], "overhead": []}
    for _ in range(rounds):
        bare, runner = (s() * 1e6 / ITERATIONS for s in (bare_seconds, runner_seconds))
        for key, value in (("bare", bare), ("runner", runner), ("overhead", runner - bare)):
            times_us[key].append(value)
    summary: dict[str, Any] = {"rounds": rounds, "iterations": ITERATIONS}
    for key, values in times_us.items():
        ordered = sorted(values)
        summary[f"{key}_us"] = statistics.median(ordered)
        summary[f"{key}_spread_us"] = [ordered[rounds // 5], ordered[-1 - rounds // 5]]
    return summary
