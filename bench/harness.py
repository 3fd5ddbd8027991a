"""Times an operator against its eager definition: checked first, then interleaved, medians and spread.

Order of a run: compare with the reference, warm up, then eager, segfast, compiled, eager, ... so that a drift of the
machine hits all of them. On CUDA, device events time the work; on the CPU, the clock does. Bandwidth is that of a copy
measured in the same run.
"""

# SPDX-License-Identifier: Apache-2.0

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from segfast._native import build_info


class Work(NamedTuple):
    """One case made ready: the callables to time and the bytes the floor moves."""

    segfast: Callable[[], object]
    eager: Callable[[], object]
    check: Callable[[], None]
    floor_bytes: int


class Row(NamedTuple):
    """One line of the table; times are medians in milliseconds, spreads are (p20, p80)."""

    case: str
    eager_ms: float
    compiled_ms: float | None
    segfast_ms: float
    segfast_spread_ms: tuple[float, float]
    ratio: float
    percent_of_copy: float


def once_ms(call: Callable[[], object], device: str) -> float:
    """The time of one call."""
    if device == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def copy_bandwidth_gbs(device: str) -> float:
    """Bytes read plus written per second by a plain copy of 512 MiB."""
    source = torch.ones(1 << 27, device=device)
    target = torch.empty_like(source)
    times = [once_ms(lambda: target.copy_(source), device) for _ in range(7)]
    return 2 * source.numel() * 4 / statistics.median(times) / 1e6


def measure(
    name: str, work: Work, *, device: str, rounds: int, compiled: bool, bandwidth_gbs: float
) -> Row:
    """Check, warm up, interleave, summarise."""
    work.check()
    calls = {"eager": work.eager, "segfast": work.segfast}
    if compiled:
        calls["compiled"] = torch.compile(work.eager)
    for call in calls.values():
        call()
        call()
    times: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            times[key].append(once_ms(call, device))
    median = {key: statistics.median(values) for key, values in times.items()}
    ordered = sorted(times["segfast"])
    spread = ordered[len(ordered) // 5], ordered[-1 - len(ordered) // 5]
    floor_ms = work.floor_bytes / bandwidth_gbs / 1e6
    return Row(
        name,
        median["eager"],
        median.get("compiled"),
        median["segfast"],
        spread,
        median["eager"] / median["segfast"],
        100 * floor_ms / median["segfast"],
    )


def run(op: str, cases: dict[str, dict], setup: Callable[..., Work]) -> None:
    """The command line of every bench file: a table on the screen, JSON on request."""
    parser = argparse.ArgumentParser(description=f"{op} against its eager definition")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument(
        "--compiled", action="store_true", help="also time torch.compile of the eager form"
    )
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bandwidth = copy_bandwidth_gbs(options.device)
    print(
        f"{op} on {options.device}, {options.threads} threads, copy {bandwidth:.1f} GB/s, commit {_commit()}"
    )
    print(
        f"{'case':44s} {'eager':>9s} {'compiled':>9s} {'segfast':>9s} {'p20-p80':>15s} {'ratio':>6s} {'% copy':>6s}"
    )
    rows = []
    for name, case in cases.items():
        torch.manual_seed(0)
        work = setup(**case, device=options.device)
        row = measure(
            name,
            work,
            device=options.device,
            rounds=options.rounds,
            compiled=options.compiled,
            bandwidth_gbs=bandwidth,
        )
        compiled_text = f"{row.compiled_ms:9.3f}" if row.compiled_ms is not None else f"{'-':>9s}"
        low, high = row.segfast_spread_ms
        print(
            f"{name:44s} {row.eager_ms:9.3f} {compiled_text} {row.segfast_ms:9.3f} {low:7.3f}-{high:7.3f} "
            f"{row.ratio:6.1f} {row.percent_of_copy:6.1f}"
        )
        rows.append(row._asdict())
    if options.json:
        record = {
            "op": op,
            "device": _device_name(options.device),
            "threads": options.threads,
            "copy_gbs": bandwidth,
        }
        record |= {"commit": _commit(), "build": build_info(), "rows": rows}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)


def _device_name(device: str) -> str:
    return (
        torch.cuda.get_device_name()
        if device == "cuda"
        else platform.processor() or platform.machine()
    )


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
