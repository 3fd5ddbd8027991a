"""Train for hours and watch the memory: is it flat?

python tests/faults/soak.py --minutes 120

The built-in demo with a worker process, validated, drawn and saved every 200 iterations. Prints the slope of the
resident memory over the second half of the time, of this process and of its workers.
"""

# SPDX-License-Identifier: Apache-2.0

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from segfast.config import load_config
from segfast.runner import Hook, Runner


class Watch(Hook):
    """Samples the memory every ten seconds; ends the training when the time is up."""

    def __init__(self, minutes: float) -> None:
        """Start the clock."""
        self.start, self.end = time.monotonic(), time.monotonic() + 60 * minutes
        self.samples: list[tuple[float, int, int]] = []  # seconds, bytes here, bytes of the workers

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Sample."""
        now = time.monotonic()
        if now >= self.end:
            runner.train_loop.stop_training = True
        if not self.samples or now - self.start - self.samples[-1][0] >= 10:
            workers = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            memory = [resident(process) for process in ("self", *workers)]
            self.samples.append((now - self.start, memory[0], sum(memory[1:])))


def resident(process: str) -> int:
    """Bytes of a process's memory that are in RAM (Linux)."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Train and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    options = parser.parse_args()
    watch = Watch(options.minutes)
    config = load_config(
        None, {"train_cfg.max_iters": 10**7, "train_cfg.val_interval": 200, "device": "cpu"}
    )
    config["default_hooks"]["checkpoint"]["interval"] = 200
    config["train_dataloader"]["num_workers"] = 1
    config["custom_hooks"] = [watch]
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner.from_cfg({**config, "work_dir": folder, "quiet": True})
        runner.train()
        iterations = runner.iter
    seconds, *memory = np.array(watch.samples, dtype=float).T
    print(f"{seconds[-1] / 60:.0f} minutes, {iterations} iterations, {len(seconds)} samples")
    late = seconds > seconds[-1] / 2
    for name, values in zip(("training", "workers"), memory, strict=True):
        slope = np.polyfit(seconds[late] / 3600, values[late] / 2**20, 1)[0]
        mib = values / 2**20
        print(
            f"{name}: {mib[0]:.0f} MiB first, {mib[late].mean():.1f} MiB mean and {slope:+.2f} MiB an hour late"
        )


if __name__ == "__main__":
    main()
