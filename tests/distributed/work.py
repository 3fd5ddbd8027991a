"""What the processes of the tests do: `work.py NAME FOLDER [JSON ...]` calls one of these functions."""

# SPDX-License-Identifier: Apache-2.0

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from blocks import CASES, EXACT, GO_ON, LENGTHS, SHARDED_CASES, Blocks, config

import segfast
from segfast.distributed import world
from segfast.distributed.sharded import is_sharded
from segfast.models.distributed import unwrapped
from segfast.runner import Hook, Runner

RANK, PROCESSES = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def own(folder):
    """A work_dir of this process: only the first one's may come into being."""
    return folder / f"rank{RANK}"


def weights(runner):
    state = unwrapped(runner.model).state_dict()
    whole = {
        name: value.full_tensor() if is_sharded(value) else value for name, value in state.items()
    }
    return {name: value.cpu().clone() for name, value in whole.items()}


def trained(folder, changes, **calls):
    """What a training leaves in this process."""
    runner = Runner.from_cfg(config(own(folder), PROCESSES, **changes), **calls)
    runner.train()
    hook = runner.checkpoint_hook
    best = [hook.best_score, Path(hook.best_checkpoint).name] if hook.best else None
    return {
        "weights": weights(runner),
        "metrics": runner.metrics,
        "best": best,
        "iter": runner.iter,
    }


def training(folder, resumed_from=None):
    """Everything that ends well, in one start of the processes; what each finds goes to a file of its own."""
    found = {}
    for name, changes in (CASES | (SHARDED_CASES if PROCESSES > 1 else {})).items():
        found[name] = trained(folder / name, changes)
    for name, changes in EXACT.items():
        found[name] = trained(folder / name, changes)
        file = folder / name / "rank0" / "iter_3.pth"
        found[f"{name}_resumed"] = trained(
            folder / f"{name}_resumed", changes, load_from=file, resume=True
        )
    found["seed"] = torch.initial_seed()
    for size in LENGTHS:
        runner = Runner.from_cfg(config(own(folder / "evaluated"), PROCESSES, val_size=size))
        found[f"evaluated_{size}"] = runner.val()
    if resumed_from:
        for name in GO_ON:
            changes = (CASES | SHARDED_CASES)[name]
            file = Path(resumed_from) / name.removeprefix("sharded_") / "rank0" / "iter_3.pth"
            found[f"{name}_resumed"] = trained(
                folder / f"{name}_resumed", changes, load_from=file, resume=True
            )
    torch.save(found, folder / f"found{RANK}.pt")


class Marked(Blocks):
    """Writes down when the image with NaN is read."""

    def __init__(self, mark, **options):
        super().__init__(**options)
        self.mark = mark

    def __getitem__(self, index):
        if int(index) == self.nan_at and not self.mark.exists():
            self.mark.write_text(str(time.time()))
        return super().__getitem__(index)


class Slow(Blocks):
    """Every image after the first few takes a minute to read."""

    def __init__(self, after, **options):
        super().__init__(**options)
        self.rest = after

    def __getitem__(self, index):
        self.rest -= 1
        if self.rest < 0:
            time.sleep(60)
        return super().__getitem__(index)


class Misbehave(Hook):
    """At one iteration of one process: raises, or sends the process a signal."""

    def __init__(self, how, rank, mark):
        self.how, self.rank, self.mark = how, rank, mark

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if world()[0] != self.rank or runner.iter != 4:
            return
        self.mark.write_text(str(time.time()))
        if self.how == "raise":
            raise RuntimeError("the cat sat on the keyboard")
        os.kill(os.getpid(), getattr(signal, self.how))


def failing(folder, how, rank):
    """A training without end in which one process fails, or gets the image of a sample with NaN."""
    endless = {"type": "IterBasedTrainLoop", "max_iters": 10**6}
    mark = folder / "failed_at"
    if how == "nan":
        data = {"type": Marked, "nan_at": rank, "mark": mark}
        segfast.train(config(folder / "run", PROCESSES, data=data, train_cfg=endless))
    hook = {
        "type": Misbehave,
        "how": how.removesuffix(" beside a worker"),
        "rank": rank,
        "mark": mark,
    }
    changes = {"custom_hooks": [hook], "train_cfg": endless}
    if how.endswith(" beside a worker"):
        changes["data"] = {"type": Slow, "after": 12}
    full = config(folder / "run", PROCESSES, **changes)
    full["train_dataloader"]["num_workers"] = int(how.endswith(" beside a worker"))
    segfast.train(full)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *map(json.loads, sys.argv[3:]))
