"""`segfast bench`: runs what was asked for, prints a table a person can read, writes JSON on request."""

# SPDX-License-Identifier: Apache-2.0

import argparse
import os
import shutil
from collections.abc import Sequence
from typing import Any

import torch

from segfast.bench import records
from segfast.bench.harness import cases, copy_bandwidth_gbs, measure, steady_heap
from segfast.bench.memory import measure_memory
from segfast.bench.runner import measure_runner
from segfast.errors import UserError

_TABLE = "{:53s} {:>7s} {:>9s} {:>9s} {:>9s} {:>15s} {:>6s} {:>6s}"
_HEAD = ("", "threads", "eager", "compiled", "segfast", "(p20-p80)", "ratio", "% copy")


def run(options: argparse.Namespace) -> None:
    """Measure and show; with --json, also write.

    Raises:
        UserError: an unknown operator, or options this machine cannot serve.
    """
    threads = _threads(options.threads)
    _check(options)
    with_runner = not options.memory and (
        "runner" in options.names or (not options.names and options.device == "cpu")
    )
    names = [name for name in options.names if name != "runner"]
    record = records.facts(options.device)
    build = record["build"]
    print(
        f"{record['device']}, {build['cpu_capability']}; segfast {build['version']} ({record['commit']}), "
        f"torch {build['torch_running']}, python {record['python']}"
    )
    if options.memory:
        record["memory"] = _memory(names, threads[0])
    elif names or not options.names:
        steady_heap()
        record["rows"] = _times(names, threads, options)
    if with_runner:
        torch.set_num_threads(threads[0])
        record["runner"] = _runner(options.rounds)
    if options.json:
        records.write(options.json, record)


def _threads(text: str | None) -> list[int]:
    if text is None:
        return [torch.get_num_threads()]
    try:
        threads = [int(part) for part in text.split(",")]
    except ValueError:
        threads = []
    if not threads or min(threads) < 1:
        raise UserError(f"--threads: expected numbers such as 2 or 2,1, got {text!r}")
    return threads


def _check(options: argparse.Namespace) -> None:
    if options.rounds < 1:
        raise UserError(f"--rounds: expected at least 1, got {options.rounds}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device (hint: segfast doctor)")
    if options.device == "cuda" and (options.memory or "runner" in options.names):
        raise UserError("--memory and runner measure the CPU (hint: leave out --device cuda)")
    compiler = os.environ.get("CXX", "g++")
    if options.compiled and options.device == "cpu" and shutil.which(compiler) is None:
        raise UserError(
            f"--compiled: torch.compile needs a C++ compiler, and there is no {compiler}"
        )


def _times(
    names: Sequence[str], threads: Sequence[int], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Every case, a line as soon as it is known."""
    chosen = cases(names, "CUDA_CASES" if options.device == "cuda" else "CASES")
    copy_gbs = {}
    for count in threads:
        torch.set_num_threads(count)
        copy_gbs[count] = copy_bandwidth_gbs(options.device)
    speeds = ", ".join(f"{speed:.1f} GB/s with {count}" for count, speed in copy_gbs.items())
    print(f"threads: copy {speeds}; times in ms, medians of at least {options.rounds} rounds\n")
    print(_TABLE.format(*_HEAD))
    rows: list[dict[str, Any]] = []
    for case in chosen:
        if not rows or rows[-1]["op"] != case.op:
            print(case.op)
        torch.set_num_threads(max(threads))
        for row in measure(case, options.device, options.rounds, options.compiled, copy_gbs):
            print(_TABLE.format(*_cells(row)), flush=True)
            rows.append(row)
    return rows


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["segfast_spread_ms"]
    return [
        f"  {row['case']}",
        str(row["threads"]),
        f"{row['eager_ms']:.3f}",
        f"{row['compiled_ms']:.3f}" if "compiled_ms" in row else "-",
        f"{row['segfast_ms']:.3f}",
        f"{low:.3f}-{high:.3f}",
        f"{row['ratio']:.1f}",
        f"{row['percent_of_copy']:.1f}",
    ]


def _memory(names: Sequence[str], threads: int) -> list[dict[str, Any]]:
    """Every case, and those that only segfast can do on a small machine."""
    print(f"{threads} threads; peak MiB of one call beyond its inputs and outputs\n")
    line = "{:53s} {:>9s} {:>9s} {:>15s}"
    print(line.format("", "eager", "segfast", "(output itself)"))
    rows: list[dict[str, Any]] = []
    chosen = [(case, ("eager", "segfast")) for case in cases(names)]
    chosen += [(case, ("segfast",)) for case in cases(names, "MEMORY_CASES")]
    for case, sides in sorted(chosen, key=lambda pair: pair[0].op):
        if not rows or rows[-1]["op"] != case.op:
            print(case.op)
        row = measure_memory(case, threads, sides)
        cells = [f"{row[key]:.1f}" if key in row else "-" for key in ("eager_mib", "segfast_mib")]
        print(line.format(f"  {case.name}", *cells, f"{row['output_mib']:.1f}"), flush=True)
        rows.append(row)
    return rows


def _runner(rounds: int) -> dict[str, Any]:
    """The Runner's overhead."""
    summary = measure_runner(rounds)
    low, high = summary["overhead_spread_us"]
    print(
        f"runner\n  an iteration takes {summary['bare_us']:.0f} us in a bare loop and "
        f"{summary['runner_us']:.0f} us in the Runner: {summary['overhead_us']:.0f} us ({low:.0f}-{high:.0f}) more"
    )
    return summary
