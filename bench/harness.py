"""Measures a case: checked against its eager definition first, then both sides interleaved, medians and spreads.

eager, segfast, compiled, eager, ... so that a drift of the machine hits all sides alike. Two calls of each side come
before the first that counts: what happens once (loading, compiling, the thread pool) is not timed. On the CPU the clock
times a call; on CUDA events do, with a cold cache (`cuda_clock`), and each side's extra memory is measured too.
Bandwidth is that of a plain copy measured in the same run with the same number of threads.
"""

# SPDX-License-Identifier: Apache-2.0

import ctypes
import importlib
import pkgutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segfast.bench import cuda_clock, ops
from segfast.errors import UserError
from segfast.registry import did_you_mean

LEAST_MS = 300.0  # a case goes on until its rounds have taken this long,
MOST_ROUNDS = 20  # but at most so many times the rounds asked for


class Work(NamedTuple):
    """One case made ready: what to call, and what the op has to move and compute."""

    segfast: Callable[
        [], Any
    ]  # one call, forward and (where there is one) backward; returns its tensors
    eager: Callable[[], Any]
    compiled: Callable[[], Callable[[], Any]]  # makes the call with the eager definition compiled
    check: Callable[[], None]  # raises AssertionError unless segfast's result is right
    floor_bytes: int  # every input read once and every output written once, per pass
    elements: int  # output pixels times classes or channels


class Case(NamedTuple):
    """A named row of an operator's table; `work` makes it ready."""

    op: str
    name: str
    parameters: Mapping[str, Any]
    setup: Callable[..., Work]

    def work(self, device: str) -> Work:
        """Inputs from seed 0 on a device, and the calls that use them."""
        torch.manual_seed(0)
        return self.setup(**self.parameters, device=device)


def op_names() -> list[str]:
    """Operators that have cases: the files `ops/bench_<stem>.py`."""
    return [
        module.name.removeprefix("bench_")
        for module in pkgutil.iter_modules(ops.__path__)
        if module.name.startswith("bench_")
    ]


def cases(names: Sequence[str] = (), table: str = "CASES") -> list[Case]:
    """The cases of some operators, by default of all.

    Args:
        names: operators.
        table: CASES, sized for a CPU; CUDA_CASES, sized for a GPU; MEMORY_CASES, which few operators have.

    Raises:
        UserError: no such operator.
    """
    known = op_names()
    for name in names:
        if name not in known:
            raise UserError(
                f"no bench for {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
            )
    found = []
    for name in names or known:
        module = importlib.import_module(f"{ops.__name__}.bench_{name}")
        table_of_op = getattr(module, table, {})
        found += [Case(name, case, values, module.setup) for case, values in table_of_op.items()]
    return found


def assert_close(actual: Sequence[Tensor], expected: Sequence[Tensor], rtol: float) -> None:
    """Compare results tensor by tensor; values ten times smaller than the largest may err no less than those."""
    for ours, theirs in zip(actual, expected, strict=True):
        largest = theirs.abs().max().item()
        torch.testing.assert_close(
            ours.double(), theirs.double(), rtol=rtol, atol=rtol * largest / 10
        )


def steady_heap() -> None:
    """Keep glibc from returning freed heap to the system while two sides take turns.

    Otherwise the side that frees the topmost block pays for unmapping what the other one left, several milliseconds at
    random. Blocks from 32 MiB on are still mapped anew for each allocation, on both sides.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(m_mmap_threshold, 32 << 20)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def once_ms(call: Callable[[], Any]) -> float:
    """The time of one call, freeing its result included: that belongs to what a call allocates."""
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def copy_bandwidth_gbs(device: str) -> float:
    """Bytes read plus written per second by a plain copy, 512 MiB on the CPU."""
    if device == "cuda":
        return cuda_clock.copy_bandwidth_gbs()
    source = torch.ones(1 << 27)
    target = torch.zeros_like(source)
    times = [once_ms(lambda: target.copy_(source)) for _ in range(7)]
    return 2 * source.numel() * 4 / statistics.median(times) / 1e6


def measure(
    case: Case, device: str, rounds: int, compiled: bool, copy_gbs: Mapping[int, float]
) -> list[dict[str, Any]]:
    """Check a case, then time it once per number of threads.

    Args:
        case: what to measure.
        device: "cpu" or "cuda".
        rounds: how often each side is called at least; short calls are repeated until LEAST_MS have passed.
        compiled: also time torch.compile of the eager definition.
        copy_gbs: number of threads -> copy bandwidth with so many.

    Returns:
        One plain dict per number of threads; times in ms, medians, spreads from the 20th to the 80th percentile. On
        CUDA also `<side>_mib`, the extra peak, `<side>_host_ms`, and `same_bits` of segfast's results.

    Raises:
        AssertionError: the result is wrong; nothing was timed.
    """
    work = case.work(device)
    work.check()
    calls = {"eager": work.eager, "segfast": work.segfast}
    if compiled:
        torch.compiler.reset()  # else a second shape compiles for all shapes, and a ninth not at all
        calls["compiled"] = work.compiled()
    parameters = {
        key: value if isinstance(value, (bool, int, float, str)) else str(value)
        for key, value in case.parameters.items()
    }
    rows = []
    for threads, bandwidth in copy_gbs.items():
        torch.set_num_threads(threads)
        row = {"op": case.op, "case": case.name, "threads": threads, "parameters": parameters}
        row |= _cuda_row(calls, rounds) if device == "cuda" else _cpu_row(calls, rounds)
        floor_ms = work.floor_bytes / bandwidth / 1e6
        row |= {
            "floor_bytes": work.floor_bytes,
            "copy_gbs": bandwidth,
            "percent_of_copy": 100 * floor_ms / row["segfast_ms"],
        }
        rows.append(row)
    return rows


def _cpu_row(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    for call in calls.values():
        call()
        call()
    return summary(interleave(calls, lambda _, call: once_ms(call), rounds))


def _cuda_row(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    clock = cuda_clock.CudaClock()
    for side, call in calls.items():
        clock.warm_up(side, call)
    row = summary(interleave(calls, clock.once_ms, rounds))
    for side, call in calls.items():
        row[f"{side}_host_ms"] = statistics.median(clock.host_ms[side])
        row[f"{side}_mib"] = cuda_clock.extra_peak_mib(call)
    return {**row, "same_bits": cuda_clock.same_bits(calls["segfast"])}


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    once: Callable[[str, Callable[[], Any]], float],
    rounds: int,
) -> dict[str, list[float]]:
    """Times of every side in ms, taken in turns; `once(side, call)` takes one."""
    times: dict[str, list[float]] = {side: [] for side in calls}
    spent_ms, done = 0.0, 0
    while done < rounds or (spent_ms < LEAST_MS and done < MOST_ROUNDS * rounds):
        for side, call in calls.items():
            times[side].append(once(side, call))
            spent_ms += times[side][-1]
        done += 1
    return times


def summary(times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Medians, spreads and the ratio of medians."""
    result: dict[str, Any] = {"rounds": len(times["eager"])}
    for side, values in times.items():
        ordered = sorted(values)
        result[f"{side}_ms"] = statistics.median(ordered)
        result[f"{side}_spread_ms"] = [
            ordered[len(ordered) // 5],
            ordered[-1 - len(ordered) // 5],
        ]
    return {**result, "ratio": result["eager_ms"] / result["segfast_ms"]}
