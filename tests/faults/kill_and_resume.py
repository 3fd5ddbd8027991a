"""Kill a training with SIGKILL at a random instant of each phase in turn, resume it, compare with the run that nobody killed. Repeat.

python tests/faults/kill_and_resume.py --kills 50

The training uses what could go wrong: accumulation that does not divide the checkpoint's interval, dropout, batch
norm, an average of the weights, two schedulers, worker processes (every other time), a validation that draws random
numbers and keeps a best file. Final weights, averages, metrics and records must be the same to the bit.
"""

# SPDX-License-Identifier: Apache-2.0

import argparse
import gc
import hashlib
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runner"))
from toys import ToyData, ToyMetric, ToyModel

from segfast.runner import Hook, Runner

PHASES = ("starting", "iterating", "saving", "validating")


class Net(ToyModel):
    """The toy with batch norm, a wide layer (so that saving takes a while), and noise when it predicts."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        wide = nn.Linear(512, 512)
        self.layer = nn.Sequential(
            nn.Linear(2, 512), nn.BatchNorm1d(512), nn.ReLU(), wide, nn.Linear(512, 1)
        )

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        """As the toy's; predicting draws from the stream that dropout draws from."""
        if mode == "predict":
            torch.rand(1)
        return super().forward(inputs, data_samples, mode)


class Phase(Hook):
    """Writes down what the run is doing, for the one who kills it."""

    priority = "LOWEST"

    def __init__(self, phase: Any) -> None:
        """Take the shared number."""
        self.phase = phase

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """An iteration."""
        self.phase.value = PHASES.index("iterating")

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """What follows is the writing."""
        self.phase.value = PHASES.index("saving")

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """A validation."""
        self.phase.value = PHASES.index("validating")


def config(folder: Path, workers: int, phase: Any) -> dict:
    """Sixty iterations, a save every four, a validation every ten."""
    return {
        "model": {"type": Net},
        "work_dir": str(folder),
        "train_dataloader": {"batch_size": 4, "num_workers": workers, "dataset": {"type": ToyData}},
        "val_dataloader": {"batch_size": 2, "dataset": {"type": ToyData, "size": 16}},
        "val_evaluator": {"type": ToyMetric},
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 60, "val_interval": 10},
        "optim_wrapper": {
            "accumulative_counts": 3,
            "clip_grad": {"max_norm": 1.0},
            "optimizer": {"type": "AdamW", "lr": 0.01},
        },
        "param_scheduler": [
            {"type": "PolyLR", "eta_min": 1e-4, "by_epoch": False},
            {"type": "ReduceOnPlateauLR", "monitor": "aAcc", "rule": "greater", "patience": 1},
        ],
        "default_hooks": {
            "logger": {"interval": 2},
            "checkpoint": {"interval": 4},
            "visualization": None,
        },
        "custom_hooks": [{"type": "EMAHook", "momentum": 0.05}, Phase(phase)],
        "randomness": {"seed": 3},
        "device": "cpu",
        "quiet": True,
    }


def train(folder: Path, workers: int, phase: Any) -> None:
    """One run, from wherever the folder stands."""
    torch.set_num_threads(1)
    Runner.from_cfg(config(folder, workers, phase), resume=True).train()
    gc.collect()  # the loader's workers end with it, not with the process


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that must not depend on having been killed."""
    state = torch.load(folder / "iter_60.pth", weights_only=True)
    digest = hashlib.sha256()
    for part in ("state_dict", "ema_state_dict"):
        for name, value in sorted(state[part].items()):
            digest.update(
                name.encode() + (value.numpy().tobytes() if hasattr(value, "numpy") else b"")
            )
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("time", None)
        record.pop("data_time", None)
    files = sorted(path.name for path in folder.glob("*.pth"))
    return {"weights": digest.hexdigest(), "records": records, "files": files}


def start(folder: Path, workers: int) -> tuple[multiprocessing.Process, Any]:
    """The training in a process of its own, forked: importing torch again would take longer than the training."""
    context = multiprocessing.get_context("fork")
    phase = context.Value("i", 0)
    process = context.Process(target=train, args=(folder, workers, phase))
    process.start()
    return process, phase  # type: ignore[return-value]


def whole_run(folder: Path, workers: int) -> float:
    """Run to the end from where the folder stands; seconds from the first iteration on."""
    process, phase = start(folder, workers)
    wait_for_the_first_iteration(process, phase)
    before = time.perf_counter()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"a run in {folder} ended with {process.exitcode}")
    return time.perf_counter() - before


def wait_for_the_first_iteration(process: multiprocessing.Process, phase: Any) -> None:
    """Or for the end of the process."""
    while phase.value == PHASES.index("starting") and process.exitcode is None:
        time.sleep(0.001)


def wait_for_an_instant(
    process: multiprocessing.Process, phase: Any, wanted: int, seconds: float, rng: random.Random
) -> None:
    """Somewhere in that phase, somewhere in a run that takes so many seconds; or for the end of the process."""
    if PHASES[wanted] == "starting":
        process.join(rng.uniform(0, 0.1))
        return
    wait_for_the_first_iteration(process, phase)
    process.join(rng.uniform(0, seconds))
    while phase.value != wanted and process.exitcode is None:
        time.sleep(0.0001)
    process.join(rng.uniform(0, 0.004))


def kill_and_compare(kills: int, seed: int, root: Path) -> Counter:
    """Kill that many trainings, each at one instant.

    Returns:
        How many were killed in which phase.

    Raises:
        SystemExit: a resumed run differs from the one that nobody killed.
    """
    rng, phases = random.Random(seed), Counter()
    expected, seconds = {}, {}
    for workers in (0, 2):
        folder = root / f"whole_{workers}"
        seconds[workers] = whole_run(folder, workers)
        expected[workers] = outcome(folder)
    if expected[0] != expected[2]:
        raise SystemExit("the number of workers changes the result")
    while phases.total() < kills:
        workers, folder = 2 * (phases.total() % 2), root / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        process, phase = start(folder, workers)
        wait_for_an_instant(
            process, phase, phases.total() // 2 % len(PHASES), seconds[workers], rng
        )
        if process.exitcode is not None:
            continue  # it was quicker
        process.kill()
        process.join()
        phases[PHASES[phase.value]] += 1
        whole_run(folder, workers)
        print(f"{phases.total()}: killed while {PHASES[phase.value]}", file=sys.stderr, flush=True)
        if outcome(folder) != expected[workers]:
            raise SystemExit(
                f"killed while {PHASES[phase.value]}: {folder} differs from {root}/whole_{workers}"
            )
    return phases


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    where = Path(tempfile.mkdtemp())
    counts = kill_and_compare(options.kills, options.seed, where)
    shutil.rmtree(where)
    told = ", ".join(f"{count} while {phase}" for phase, count in counts.items())
    print(f"{counts.total()} killed ({told}), {counts.total()} resumed to the same bits")
