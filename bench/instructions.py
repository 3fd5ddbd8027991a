"""Counts the instructions of a call, where the clock is too noisy: `python bench/instructions.py [TEXT ...]`.

Each TEXT selects the cases whose "operator: name" contains it; a case takes up to three minutes. Needs valgrind
with its headers and a C compiler. valgrind does not know AVX-512: the AVX2 kernels are counted, or the plain ones with
SEGFAST_CPU_CAPABILITY=baseline. One process, one thread: a case is called once, not counted (loading, first calls),
then once more between two requests to callgrind.
"""

# SPDX-License-Identifier: Apache-2.0

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from segfast.bench.harness import cases

_REQUESTS = """
#include <valgrind/callgrind.h>
void start_counting(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void stop_counting(const char* name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
"""


def main(texts: Sequence[str]) -> None:
    """Print a line per case: instructions of a call, and per output pixel and class."""
    compiler = os.environ.get("CC", "cc")
    for tool in ("valgrind", compiler):
        if shutil.which(tool) is None:
            sys.exit(f"instructions: no {tool} on this machine")
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "requests.c", Path(folder) / "requests.so"
        source.write_text(_REQUESTS, encoding="ascii")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"]
        python = [sys.executable, "-P", __file__, "--counted", str(library), *texts]
        output = f"--callgrind-out-file={folder}/counts"
        subprocess.run(
            [*valgrind, output, *python], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        counts = [_read(path) for path in Path(folder).glob("counts.*")]
    print(f"{'':80s} {'million':>9s} {'per pixel and class':>20s}")
    for name, elements, total in sorted(count for count in counts if count):
        print(f"{name:80s} {total / 1e6:9.2f} {total / elements:20.2f}")


def _count(library: str, texts: Sequence[str]) -> None:
    """Under callgrind: call the selected cases once, counted."""
    torch.set_num_threads(1)
    requests = ctypes.CDLL(library)
    for case in cases():
        name = f"{case.op}: {case.name}"
        if texts and not any(text in name for text in texts):
            continue
        work = case.work("cpu")
        work.segfast()
        requests.start_counting()
        work.segfast()
        requests.stop_counting(f"{name}|{work.elements}".encode())


def _read(path: Path) -> tuple[str, int, int] | None:
    """Name, elements and instructions from a file of callgrind's; None from the one of the end."""
    text = path.read_text(encoding="utf-8")
    trigger = re.search(r"^desc: Trigger: Client Request: (.+)\|(\d+)$", text, re.MULTILINE)
    total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    return (trigger[1], int(trigger[2]), int(total[1])) if trigger and total else None


if __name__ == "__main__":
    if sys.argv[1:2] == ["--counted"]:
        _count(sys.argv[2], sys.argv[3:])
    else:
        main(sys.argv[1:])
