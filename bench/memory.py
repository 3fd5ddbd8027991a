"""Peak memory of one call beyond its inputs and outputs, on the CPU, each side in a process of its own (Linux).

The numbers are the kernel's, /proc/self/status: the resident set of the process and its peak. The first call loads and
initialises; anonymous memory that it keeps (scratch held between calls) counts. Then the peak is reset, and what a
second call raises it by, less the result, counts too. malloc is told to map every large block by itself, so that none
hides in memory that making the inputs has freed.
"""

# SPDX-License-Identifier: Apache-2.0

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from segfast.bench.cuda_clock import MIB, tensor_bytes
from segfast.bench.harness import Case, cases
from segfast.errors import UserError


def measure_memory(case: Case, threads: int, sides: tuple[str, ...]) -> dict[str, Any]:
    """Run each side in a new process.

    Args:
        case: what to call.
        threads: threads of both sides.
        sides: "eager" and "segfast", or "segfast" alone where eager would not fit.

    Returns:
        dict: op, case, threads, `output_mib`, and per side `<side>_mib`, the extra peak.

    Raises:
        UserError: not Linux.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise UserError("bench --memory reads /proc/self: it runs on Linux only")
    row: dict[str, Any] = {"op": case.op, "case": case.name, "threads": threads}
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    for side in sides:
        # -P: in a checkout, the uncompiled sources must not shadow the installed package.
        command = [sys.executable, "-P", "-m", __name__, case.op, case.name, side, str(threads)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{case.op}, {case.name}, {side}: {done.stderr.strip()}")
        extra_bytes, output_bytes = json.loads(done.stdout)
        row |= {f"{side}_mib": extra_bytes / MIB, "output_mib": output_bytes / MIB}
    return row


def _extra_peak(op: str, name: str, side: str, threads: int) -> tuple[int, int]:
    """Bytes that one call needs, and bytes of its result; in a fresh process."""
    torch.set_num_threads(threads)
    known = cases([op]) + cases([op], "MEMORY_CASES")
    work = next(case for case in known if case.name == name).work("cpu")
    call = getattr(work, side)
    anonymous = _status_bytes("RssAnon")
    call()
    kept = max(0, _status_bytes("RssAnon") - anonymous)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # 5: reset the peak
    before = _status_bytes("VmRSS")
    result = call()
    output_bytes = tensor_bytes(result)
    return kept + _status_bytes("VmHWM") - before - output_bytes, output_bytes


def _status_bytes(key: str) -> int:
    """One of the sizes in /proc/self/status."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


if __name__ == "__main__":
    print(json.dumps(_extra_peak(*sys.argv[1:4], int(sys.argv[4]))))
