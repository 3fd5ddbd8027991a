"""Reads ptxas's resource report: every claimed architecture compiled every kernel, nothing spilled, no local memory.

Usage: check_ptxas.py LOG ARCH [ARCH ...]
"""

# SPDX-License-Identifier: Apache-2.0

import re
import sys
from collections import defaultdict


def main(log: str, archs: list[str]) -> None:
    """Print one line per kernel; exit with a reason when something is wrong."""
    kernels: dict[str, dict[str, int]] = defaultdict(dict)
    kernel = arch = ""
    problems = []
    with open(log, encoding="utf-8", errors="replace") as file:
        for line in file:
            if match := re.search(r"Compiling entry function '(\w+)' for 'sm_(\d+)'", line):
                kernel, arch = match.groups()
            elif match := re.search(
                r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill", line
            ):
                if any(int(number) for number in match.groups()):
                    problems.append(f"sm_{arch} {kernel}: {line.strip()}")
            elif (match := re.search(r"Used (\d+) registers", line)) and kernel:
                kernels[kernel][arch] = int(match.group(1))
    if not kernels:
        sys.exit("no resource report found: were the CUDA kernels compiled?")
    for name, registers in kernels.items():
        missing = [a for a in archs if a not in registers]
        if missing:
            problems.append(f"{name}: not compiled for sm_{', sm_'.join(missing)}")
    most = max(max(registers.values()) for registers in kernels.values())
    print(
        f"{len(kernels)} kernels x {len(archs)} architectures, at most {most} registers, no spills"
    )
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
