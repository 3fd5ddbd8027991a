"""The step stage: `python -P -m segfast.bench.e2e.train_step OUT DEVICE SECONDS [--quick]`.

One network, one set of weights, two sides (`sides`). First both must agree: loss and gradient norm of a step under
autocast, counts of a validation batch without it. Then training steps and validation batches in turns, block by block,
on batches that lie ready on the host; extra peak memory; waits for the device; and the step with data loading.
Times are wall-clock and end with a synchronisation. OUT is written anew after every part.
"""

# SPDX-License-Identifier: Apache-2.0

import copy
import json
import os
import shutil
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from segfast.bench.cuda_clock import MIB
from segfast.bench.e2e.data import Crops
from segfast.bench.e2e.loading import eager_ms, runner_ms, synchronize
from segfast.bench.e2e.net import PyramidNet
from segfast.bench.e2e.sides import EagerSide, SegfastSide
from segfast.bench.e2e.syncs import SyncCounter, counting_works
from segfast.datasets import pseudo_collate


class Plan(NamedTuple):
    """Sizes of everything."""

    size: tuple[int, int]
    num_classes: int
    batch: int
    net: dict[str, Any]
    blocks: int  # timed blocks of each side
    iterations: int  # in a block
    loaded_iterations: int
    workers: int  # at most


FULL = Plan((512, 512), 150, 16, {}, 5, 10, 30, 8)
QUICK = Plan((64, 64), 7, 2, {"width": 8, "blocks": (1, 1), "pyramid": 16}, 1, 1, 1, 0)
READY = 4  # batches that lie on the host


def make_sides(plan: Plan, device: str, amp: bool) -> dict[str, Any]:
    """Both sides with the same weights."""
    torch.manual_seed(0)
    net = PyramidNet(plan.num_classes, **plan.net)
    return {
        name: kind(copy.deepcopy(net), plan.num_classes, device, amp)
        for name, kind in (("eager", EagerSide), ("segfast", SegfastSide))
    }


def make_batches(plan: Plan, side: Any) -> list[dict[str, Any]]:
    """The same pictures for both, labels in the side's dtype."""
    data = Crops(plan.size, plan.num_classes, side.label_dtype)
    starts = range(0, READY * plan.batch, plan.batch)
    return [pseudo_collate([data[i] for i in range(s, s + plan.batch)]) for s in starts]


def check(plan: Plan, device: str) -> dict[str, Any]:
    """Both sides compute the same; returns what was compared.

    Raises:
        AssertionError: they do not.
    """
    result: dict[str, Any] = {"loss": {}, "weights_moved": {}}
    for name, side in make_sides(plan, device, amp=True).items():
        parameters = [p for p in _net(side).parameters() if p.requires_grad]
        before = [p.detach().clone() for p in parameters]
        side.train_step(make_batches(plan, side)[0])
        result["loss"][name] = side.read_log()
        moved = [
            (p.detach() - b).double().square().sum()
            for p, b in zip(parameters, before, strict=True)
        ]
        result["weights_moved"][name] = float(torch.stack(moved).sum().sqrt())
    for key, tolerance in (("loss", 2e-3), ("weights_moved", 2e-2)):
        eager, ours = result[key]["eager"], result[key]["segfast"]
        assert abs(ours - eager) <= tolerance * abs(eager), f"{key}: eager {eager}, segfast {ours}"
    counts = {}
    for name, side in make_sides(plan, device, amp=False).items():
        side.val_step(make_batches(plan, side)[0])
        counts[name] = side.counts
    differing = int((counts["eager"] - counts["segfast"]).abs().sum()) // 2
    total = int(counts["eager"].sum())
    result["val_pixels"] = {"counted": total, "differing": differing}
    assert int(counts["segfast"].sum()) == total, "the two count different numbers of pixels"
    assert differing <= 1e-3 * total, f"{differing} of {total} pixels fall to another class"
    return result


def _net(side: Any) -> torch.nn.Module:
    return side.net if isinstance(side, EagerSide) else side.model.net


def in_turns(
    plan: Plan, device: str, steps: dict[str, Callable], ends: dict[str, Callable]
) -> dict[str, Any]:
    """Blocks of steps of the sides in turns: times, images per second, extra peak memory, waits.

    Args:
        plan: sizes.
        device: "cpu" or "cuda".
        steps: side -> f(index), one iteration.
        ends: side -> what ends a block: reading the log.
    """
    for name, step in steps.items():  # cuDNN chooses, the allocator grows, the ring fills
        for index in range(2 * READY if device == "cuda" else 1):
            step(index)
        ends[name]()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(plan.blocks):
        for name, step in steps.items():
            synchronize(device)
            begin = time.perf_counter()
            for index in range(plan.iterations):
                step(index)
            ends[name]()
            synchronize(device)
            times[name].append((time.perf_counter() - begin) * 1e3 / plan.iterations)
    result = {}
    for name, step in steps.items():
        ms = statistics.median(times[name])
        result[name] = {
            "ms": ms,
            "spread_ms": [min(times[name]), max(times[name])],
            "images_per_s": plan.batch * 1e3 / ms,
            **_memory_and_syncs(device, step),
        }
        ends[name]()
    return {**result, "ratio": result["eager"]["ms"] / result["segfast"]["ms"]}


def _memory_and_syncs(device: str, step: Callable) -> dict[str, Any]:
    """Peak beyond weights and optimiser state, and waits, of an iteration."""
    if device != "cuda":
        return {"peak_mib": None, "syncs": None}
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(0)
    torch.cuda.synchronize()
    peak = (torch.cuda.max_memory_allocated() - before) / MIB
    with SyncCounter(device) as counter:
        for index in range(READY):
            step(index)
    return {"peak_mib": peak, "syncs": counter.per(READY)}


def measure_loading(plan: Plan, device: str, sides: dict[str, Any]) -> dict[str, Any]:
    """The step with data loading, two runs of each side in turns."""
    times: dict[str, list[float]] = {"eager": [], "segfast": []}
    syncs: float | None = None
    workers = min(plan.workers, _workers_that_fit(plan))
    for _ in range(min(2, plan.blocks)):
        arguments = (plan.batch, workers, plan.loaded_iterations)
        data = {n: Crops(plan.size, plan.num_classes, s.label_dtype) for n, s in sides.items()}
        times["eager"].append(eager_ms(sides["eager"], data["eager"], *arguments))
        ms, syncs = runner_ms(sides["segfast"], data["segfast"], *arguments)
        times["segfast"].append(ms)
    result: dict[str, Any] = {"workers": workers}
    for name, values in times.items():
        ms = statistics.median(values)
        result[name] = {"ms": ms, "spread_ms": [min(values), max(values)]}
        result[name]["images_per_s"] = plan.batch * 1e3 / ms
    result["segfast"]["syncs"] = syncs
    return {**result, "ratio": result["eager"]["ms"] / result["segfast"]["ms"]}


def _workers_that_fit(plan: Plan) -> int:
    """By processors and by shared memory, in which a worker keeps two batches: eager's have 3 + 8 bytes a pixel."""
    shared = Path("/dev/shm")
    free = shutil.disk_usage(shared).free if shared.is_dir() else 0
    held = 2 * plan.batch * plan.size[0] * plan.size[1] * 11
    return max(0, min((os.cpu_count() or 1) - 1, free // (2 * held)))


def main(arguments: list[str]) -> int:
    """Check, then measure part by part as long as there is time; a part that fails is noted and the others go on."""
    out, device, limit_s = Path(arguments[0]), arguments[1], float(arguments[2])
    plan = QUICK if "--quick" in arguments else FULL
    begin = time.monotonic()
    torch.backends.cudnn.benchmark = True
    result: dict[str, Any] = {"plan": plan._asdict(), "amp": "bfloat16", "problems": {}}
    result["sync_counter_works"] = counting_works() if device == "cuda" else None
    result["check"] = check(plan, device)
    sides = make_sides(plan, device, amp=True)
    result["parameters"] = sum(p.numel() for p in _net(sides["eager"]).parameters())
    batches = {name: make_batches(plan, side) for name, side in sides.items()}

    def steps(method: str) -> dict[str, Callable]:
        return {
            name: lambda i, s=side, b=batches[name]: getattr(s, method)(b[i % READY])
            for name, side in sides.items()
        }

    logs = {name: side.read_log for name, side in sides.items()}
    nothing: dict[str, Callable] = dict.fromkeys(sides, lambda: None)
    for name, part in (
        ("train", lambda: in_turns(plan, device, steps("train_step"), logs)),
        ("val", lambda: in_turns(plan, device, steps("val_step"), nothing)),
        ("train_with_loading", lambda: measure_loading(plan, device, sides)),
    ):
        try:
            assert time.monotonic() - begin < 0.8 * limit_s, "no time was left"
            result[name] = part()
            print(f"{name}: {json.dumps(result[name])}", flush=True)
        except Exception as error:
            result["problems"][name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            traceback.print_exc()
        out.write_text(json.dumps(result), encoding="utf-8")
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
