"""Holds the compiled CUDA kernels to what `cuda_kernels.toml` says they are meant to cost.

Usage: cuda_report.py PTXAS_LOG LIBRARY ARCH [ARCH ...], e.g. `cuda_report.py ptxas.log libsegfast_ops_cuda.so 80 90`.
The library may be the object file of one .cu: `nvcc -gencode arch=compute_90,code=[sm_90,compute_90] -Xptxas=-v -c`.

For every kernel and architecture: compiled at all; no stack, no spills, no local memory (LDL, STL); as many blocks fit
an SM as `__launch_bounds__` asks for, by registers, threads and shared memory; global accesses as wide as intended; no
double precision and no real function calls unless intended. Prints one line per intention, exits with the reasons.
"""

# SPDX-License-Identifier: Apache-2.0

import re
import sys
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from cuda_library import Kernel, demangle, read_library, spills

INTENTIONS = Path(__file__).with_name("cuda_kernels.toml")


@dataclass(frozen=True)
class Limits:
    """What one SM offers; all of these have 65536 registers. Source: CUDA Programming Guide, compute capabilities."""

    threads: int
    blocks: int
    shared_kb: int
    reserved: int = 1024  # bytes of shared memory that the system takes per block


LIMITS = {
    75: Limits(1024, 16, 64, reserved=0),
    80: Limits(2048, 32, 164),
    86: Limits(1536, 16, 100),
    89: Limits(1536, 24, 100),
    90: Limits(2048, 32, 228),
    100: Limits(2048, 32, 228),
    120: Limits(1536, 24, 100),
}


@dataclass(frozen=True, eq=False)
class Intention:
    """One line of the table: what the kernels that it names are meant to be."""

    name: str  # "file: pattern"
    loads: int  # bytes of the widest global load, at least
    stores: int
    shared: int = 0  # dynamic shared memory, bytes a block, with which `blocks` must still fit
    blocks: int | dict[str, int] | None = (
        None  # instead of the launch bounds' (by "sm_75", "other")
    )
    double: bool = False  # double-precision arithmetic is meant

    def blocks_for(self, kernel: Kernel) -> int:
        """Resident blocks that are meant, as far as the SM has threads for them."""
        blocks = self.blocks
        if isinstance(blocks, dict):
            blocks = blocks.get(f"sm_{kernel.arch}", blocks.get("other"))
        return min(blocks or kernel.blocks, LIMITS[kernel.arch].threads // kernel.threads)


def read_intentions(text: str) -> dict[str, list[tuple[str, Intention]]]:
    """File stem -> (pattern, intention) in the order they are written."""
    return {
        file: [(pattern, Intention(f"{file}: {pattern}", **row)) for pattern, row in rows.items()]
        for file, rows in tomllib.loads(text).items()
    }


def intention_of(
    kernel: Kernel, name: str, table: dict[str, list[tuple[str, Intention]]]
) -> Intention | None:
    """The first whose pattern is the kernel's whole name, with or without template arguments."""
    for pattern, intention in table.get(kernel.file or "headers", []):
        if re.fullmatch(pattern, name) or re.fullmatch(pattern, name.split("<")[0]):
            return intention
    return None


def resident_blocks(kernel: Kernel, shared: int) -> int:
    """Blocks that fit one SM: registers come in 256 a warp, warps in fours, shared memory in 128 bytes."""
    limits = LIMITS[kernel.arch]
    warps = -(-kernel.threads // 32)
    registers_a_warp = -(-kernel.registers * 32 // 256) * 256
    of_registers = 65536 // registers_a_warp // 4 * 4 // warps
    a_block = -(-(kernel.shared + shared + limits.reserved) // 128) * 128
    of_shared = limits.shared_kb * 1024 // a_block if a_block else limits.blocks
    return min(limits.blocks, limits.threads // (warps * 32), of_registers, of_shared)


def widest(kernel: Kernel, *opcodes: str, bulk: str) -> int:
    """Bytes of the widest access among these opcodes, 16 for a bulk copy; 0 when there is none."""
    widths = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
    found = [0]
    for opcode in kernel.opcodes:
        base, *suffixes = opcode.split(".")
        if base in opcodes:
            found.append(next((widths[s] for s in suffixes if s in widths), 4))
        elif base == "UBLKCP" and opcode.endswith(bulk):
            found.append(16)
    return max(found)


def loads(kernel: Kernel) -> int:
    """Bytes of the widest load from global memory."""
    return widest(kernel, "LDG", "LDGSTS", "LD", bulk=".S.G")


def stores(kernel: Kernel) -> int:
    """Bytes of the widest store to global memory."""
    return widest(kernel, "STG", "ST", bulk=".G.S")


def count(kernel: Kernel, pattern: str) -> int:
    """Instructions whose opcode starts as the pattern says."""
    return sum(n for opcode, n in kernel.opcodes.items() if re.match(pattern, opcode))


def judge(kernel: Kernel, intention: Intention) -> list[str]:
    """Every way in which the kernel is not what it is meant to be."""
    if kernel.arch not in LIMITS:
        return ["the limits of this architecture are unknown (add them to LIMITS)"]
    if not kernel.threads or not (kernel.blocks or intention.blocks):
        return ["no __launch_bounds__(threads, blocks): say how many blocks are to be resident"]
    wrong = []
    if kernel.stack or kernel.local or count(kernel, r"(LDL|STL)\b"):
        accesses = count(kernel, r"(LDL|STL)\b")
        wrong.append(f"local memory: {kernel.stack + kernel.local} bytes, {accesses} accesses")
    meant, fit = intention.blocks_for(kernel), resident_blocks(kernel, intention.shared)
    if fit < meant:
        wrong.append(
            f"{fit} blocks of {kernel.threads} threads fit an SM, {meant} are meant ({kernel.registers} registers, "
            f"{kernel.shared} + {intention.shared} bytes of shared memory)"
        )
    for what, found, expected in (
        ("load", loads(kernel), intention.loads),
        ("store", stores(kernel), intention.stores),
    ):
        if found < expected:
            wrong.append(f"the widest global {what} has {found} bytes, {expected} are meant")
    if not intention.double and (doubles := count(kernel, r"(DADD|DMUL|DFMA|DSETP|DMNMX)\b")):
        wrong.append(f"{doubles} double-precision instructions, none are meant")
    wrong += [f"calls {f}, not inlined" for f in kernel.subroutines if not f.startswith("__cuda_")]
    return wrong


def span(numbers: list[int]) -> str:
    """`4`, or `4-16`."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def table_row(intention: Intention, kernels: list[Kernel], archs: list[int]) -> list[str]:
    """One line of the report; numbers by architecture are the worst of all instances."""
    by_arch = [[k for k in kernels if k.arch == arch] for arch in archs]
    fit = [min(resident_blocks(k, intention.shared) for k in group) for group in by_arch if group]
    return [
        intention.name,
        str(len({k.mangled for k in kernels})),
        f"{span([k.threads for k in kernels])} x {span([intention.blocks_for(k) for k in kernels])}",
        "/".join(str(max(k.registers for k in group)) for group in by_arch if group),
        "/".join(map(str, fit)),
        f"{max(k.shared for k in kernels)}" + (f"+{intention.shared}" if intention.shared else ""),
        span([loads(k) for k in kernels]),
        span([stores(k) for k in kernels]),
        span([count(k, r"D(ADD|MUL|FMA|SETP|MNMX)\b") for k in kernels]),
        " ".join(sorted(set().union(*map(slow_paths, kernels)))) or "-",
    ]


def slow_paths(kernel: Kernel) -> set[str]:
    """Names of the toolkit's subroutines: `div_s64` is the division of 64-bit integers."""
    return {re.sub(r"__cuda_sm\d+x?_", "", name) for name in kernel.subroutines}


HEADINGS = [
    "kernel", "instances", "threads x blocks", "registers", "fit", "shared", "load", "store", "double", "slow paths",
]  # fmt: skip


def report(
    kernels: list[Kernel], names: dict[str, str], text: str, archs: list[int]
) -> tuple[list[list[str]], list[str]]:
    """The table and the problems of all kernels, given the intentions as text."""
    table = read_intentions(text)
    groups: dict[Intention, list[Kernel]] = defaultdict(list)
    used = set()
    problems: dict[str, list[str]] = defaultdict(list)
    for kernel in kernels:
        name = f"{kernel.file or 'headers'}: {names[kernel.mangled]}"
        intention = intention_of(kernel, names[kernel.mangled], table)
        if intention is None:
            wrong = [
                f"no intention: add a line under [{kernel.file or 'headers'}] in {INTENTIONS.name}"
            ]
        else:
            used.add(intention)
            wrong = judge(kernel, intention)
            if kernel.threads and kernel.arch in LIMITS:
                groups[intention].append(kernel)
        for reason in wrong:
            problems[f"{name}: {reason}"].append(f"sm_{kernel.arch}")
    present = {kernel.file or "headers" for kernel in kernels}
    if set(table) - present:  # one object file: other files use other kernels of the headers
        present.discard("headers")
    unused = [row for file in present for _, row in table.get(file, []) if row not in used]
    lines = [f"{name} ({', '.join(on)})" for name, on in problems.items()]
    lines += [f"{row.name}: no kernel has this name" for row in unused]
    rows = [table_row(intention, group, archs) for intention, group in groups.items()]
    return [HEADINGS, *sorted(rows)], lines


def main(log: str, library: str, archs: list[int]) -> None:
    """Print the table; exit with every reason when something is not as intended."""
    with open(log, encoding="utf-8", errors="replace") as file:
        compiled, problems = spills(file)
    if not compiled:
        sys.exit("no resource report in the log: were the CUDA kernels compiled with -Xptxas=-v?")
    kernels = read_library(Path(library))
    names = demangle(sorted({k.mangled for k in kernels}))
    rows, wrong = report(kernels, names, INTENTIONS.read_text(encoding="utf-8"), archs)
    for name in sorted(set(names) | set(compiled)):
        held = {k.arch for k in kernels if k.mangled == name}
        if missing := set(archs) - (held & compiled[name]):
            wrong.append(f"{name}: not compiled for sm_{', sm_'.join(map(str, sorted(missing)))}")
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    print(
        f"{len(names)} kernels; registers and fit (blocks an SM) for sm_{', sm_'.join(map(str, archs))}"
    )
    if problems or wrong:
        sys.exit("\n".join(problems + wrong))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], [int(arch) for arch in sys.argv[3:]])
