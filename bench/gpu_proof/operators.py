"""The bench stage: `python -P -m segfast.bench.gpu_proof.operators OUT DEVICE SECONDS [--quick]`, after the build.

Writes OUT anew after every case, so that a run that is stopped keeps what it has: `copy_gbs`, `rows` as
`harness.measure` makes them, `problems` by case. The cases whose bars need torch.compile come first. It is left out
once half of the time is spent, and for the operators on lists, whose graph grows with the batch. Kernels are counted at
the end, because the profiler may slow what runs after it.
"""

# SPDX-License-Identifier: Apache-2.0

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from segfast.bench import cuda_clock, harness
from segfast.bench.gpu_proof.bars import BARS
from segfast.bench.harness import Case

ORDER = (
    "upsample_cross_entropy",
    "cross_entropy",
    "normalize_pad_stack",
    "confusion_matrix",
    "upsample_argmax",
    "upsample_confusion_matrix",
    "pad_stack",
)
LISTS = ("normalize_pad_stack", "pad_stack")
QUICK = ("confusion_matrix", "pad_stack")
ROUNDS = 15
# Shares of the time after which no more is compiled, measured, or counted.
COMPILE_SHARE, MEASURE_SHARE, COUNT_SHARE = 0.5, 0.75, 0.93


class _Run:
    """The cases one after the other, and the file they are kept in."""

    def __init__(self, out: Path, device: str, limit_s: float, quick: bool) -> None:
        self.out, self.device, self.limit_s, self.quick = out, device, limit_s, quick
        self.begin = time.monotonic()
        self.result: dict[str, Any] = {"rows": [], "problems": {}}

    def spent(self) -> float:
        """The share of the time that is gone."""
        return (time.monotonic() - self.begin) / self.limit_s

    def all_cases(self) -> list[Case]:
        """What is measured, most important first."""
        if self.device == "cuda":
            every = [case for op in ORDER for case in harness.cases([op], "CUDA_CASES")]
            return sorted(every, key=lambda case: not _needs_compiled(case))  # stable
        return harness.cases(QUICK if self.quick else ORDER)

    def measure_all(self) -> None:
        """Times, memory, bits; then kernels."""
        copy_gbs = harness.copy_bandwidth_gbs(self.device)
        self.result["copy_gbs"] = copy_gbs
        chosen = self.all_cases()
        for case in chosen:
            if self.spent() > MEASURE_SHARE:
                self.problem(case, "not measured: no time was left")
            else:
                self.measure(case, copy_gbs)
            self.save()
        if self.device == "cuda":
            for case in chosen:
                self.count_kernels(case)
                self.save()

    def measure(self, case: Case, copy_gbs: float) -> None:
        """One case with torch.compile, or without where that is what fails."""
        compiled = self.device == "cuda" and self.spent() < COMPILE_SHARE and case.op not in LISTS
        for with_compiled in (True, False) if compiled else (False,):
            try:
                self.result["rows"] += harness.measure(
                    case,
                    self.device,
                    1 if self.quick else ROUNDS,
                    with_compiled,
                    {torch.get_num_threads(): copy_gbs},
                )
            except Exception as error:
                self.problem(
                    case, f"{'with torch.compile: ' if with_compiled else ''}{_line(error)}"
                )
            else:
                print(_short(self.result["rows"][-1]), flush=True)
                return

    def count_kernels(self, case: Case) -> None:
        """Beside the measured row of the case, where there is one and the time allows."""
        row = next((r for r in self.result["rows"] if (r["op"], r["case"]) == case[:2]), None)
        if row is None or self.spent() > COUNT_SHARE:
            return
        work = case.work(self.device)
        for side in ("eager", "segfast"):
            row[f"{side}_kernels"] = cuda_clock.kernel_count(getattr(work, side))

    def problem(self, case: Case, text: str) -> None:
        """Note it beside the rows."""
        self.result["problems"].setdefault(f"{case.op}: {case.name}", []).append(text)
        print(f"{case.op}: {case.name}: {text}", flush=True)

    def save(self) -> None:
        """Write everything so far."""
        self.out.write_text(json.dumps(self.result), encoding="utf-8")
        if self.device == "cuda":
            torch.cuda.empty_cache()


def _needs_compiled(case: Case) -> bool:
    """Whether a bar compares the case with torch.compile."""
    wanted = [bar for bar in BARS if "torch.compile" in bar.text]
    return any(bar.op == case.op and case.name.startswith(bar.prefix) for bar in wanted)


def _line(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _short(row: dict[str, Any]) -> str:
    compiled = f"{row['compiled_ms']:.3f}" if "compiled_ms" in row else "-"
    return (
        f"{row['op']}: {row['case']}: eager {row['eager_ms']:.3f} compiled {compiled} "
        f"segfast {row['segfast_ms']:.3f} ms, {row['percent_of_copy']:.0f}% of copy"
    )


def main(arguments: list[str]) -> int:
    """Measure; 1 where a case has no row: its result was wrong, it failed, or there was no time."""
    out, device, limit_s = Path(arguments[0]), arguments[1], float(arguments[2])
    quick = "--quick" in arguments
    if quick:
        harness.LEAST_MS = 0.0
    harness.steady_heap()
    run = _Run(out, device, limit_s, quick)
    run.measure_all()
    return 1 if len(run.result["rows"]) < len(run.all_cases()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
