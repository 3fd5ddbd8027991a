"""Reads what nvcc made: ptxas's resource report, and the library through cuobjdump (registers, SASS, symbols, PTX).

Every reader takes lines of text, so that it can be tested on recorded snippets; `read_library` runs the tools. The
listings name a kernel by its mangled name, once in every cubin it was compiled into; cubins are numbered as they come.
"""

# SPDX-License-Identifier: Apache-2.0

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Key = tuple[int, str]  # number of the cubin, mangled name


@dataclass
class Kernel:
    """One kernel as one cubin holds it; sizes in bytes."""

    mangled: str
    arch: int
    registers: int
    stack: int
    shared: int
    local: int
    threads: int = 0  # of __launch_bounds__; 0: the source states none
    blocks: int = 0
    opcodes: Counter[str] = field(default_factory=Counter)  # with suffixes: LDG.E.128.CONSTANT
    subroutines: set[str] = field(default_factory=set)  # called, not inlined

    @property
    def file(self) -> str:
        """Stem of the .cu file, or "" for a kernel of a header outside an anonymous namespace."""
        match = re.search(r"_GLOBAL__N__[0-9a-f]{8}_(\d+)_(\w+)", self.mangled)
        return match.group(2)[: int(match.group(1))].removesuffix("_cu") if match else ""


def spills(log: Iterable[str]) -> tuple[dict[str, set[int]], list[str]]:
    """From a log of `-Xptxas=-v`: the architectures of each kernel, and every line that reports a stack or a spill."""
    compiled: dict[str, set[int]] = defaultdict(set)
    problems, kernel, arch = [], "", 0
    for line in log:
        if match := re.search(r"Compiling entry function '(\w+)' for 'sm_(\d+)\w?'", line):
            kernel, arch = match.group(1), int(match.group(2))
            compiled[kernel].add(arch)
        elif (
            match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", line)
        ) and any(int(number) for number in match.groups()):
            problems.append(f"sm_{arch} {kernel}: {line.strip()}")
    return compiled, problems


def with_cubin(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Each line with the number of the cubin it is about."""
    cubin = -1
    for line in lines:
        if line.startswith("Fatbin elf code:"):
            cubin += 1
        yield cubin, line


def resources(lines: Iterable[str]) -> dict[Key, Kernel]:
    """`cuobjdump -res-usage`: what each kernel takes."""
    kernels: dict[Key, Kernel] = {}
    name, arch = "", 0
    for cubin, line in with_cubin(lines):
        if match := re.match(r"arch = sm_(\d+)", line):
            arch = int(match.group(1))
        elif match := re.match(r"\s*Function (\S+):\s*$", line):
            name = match.group(1)
        elif match := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = map(int, match.groups())
            if arch >= 90 and shared:
                shared -= 1024  # what the system takes is listed here, but not by ptxas
            kernels[cubin, name] = Kernel(name, arch, registers, stack, shared, local)
    return kernels


_INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")


def instructions(lines: Iterable[str]) -> dict[Key, Counter[str]]:
    """`cuobjdump -sass`: how often each instruction stands in a kernel."""
    counts: dict[Key, Counter[str]] = {}
    opcodes: Counter[str] = Counter()
    for cubin, line in with_cubin(lines):
        if match := _INSTRUCTION.match(line):
            opcodes[match.group(1)] += 1
        elif match := re.match(r"\s*Function : (\S+)", line):
            opcodes = counts[cubin, match.group(1)] = Counter()
    return counts


def subroutines(lines: Iterable[str]) -> dict[Key, set[str]]:
    """`cuobjdump -elf`: the subroutines in a kernel's section: `__cuda_sm20_div_s64`, or a function of ours."""
    kernel_of: dict[tuple[int, str], str] = {}
    calls: dict[tuple[int, str], set[str]] = defaultdict(set)
    symbol = re.compile(r"\s+0x\w+(?:\s+\w+){4}\s+(0x\w+)\s+(?:\.text\.(\w+)|\$\w+\$(\w+))$")
    for cubin, line in with_cubin(lines):
        if match := symbol.match(line.rstrip()):
            section, kernel, routine = match.groups()
            if kernel:
                kernel_of[cubin, section] = kernel
            else:
                calls[cubin, section].add(routine)
    return {(key[0], kernel_of[key]): found for key, found in calls.items() if key in kernel_of}


def launch_bounds(lines: Iterable[str]) -> dict[str, tuple[int, int]]:
    """`cuobjdump -ptx`: threads and resident blocks of `__launch_bounds__`; 0 where the source states none."""
    bounds: dict[str, tuple[int, int]] = {}
    name = ""
    for line in lines:
        if match := re.search(r"\.entry (\w+)\(", line):
            name = match.group(1)
            bounds[name] = (0, 0)
        elif match := re.match(r"\s*\.maxntid (\d+)(?:, ?(\d+))?(?:, ?(\d+))?", line):
            threads = 1
            for side in match.groups():
                threads *= int(side or 1)
            bounds[name] = (threads, bounds[name][1])
        elif match := re.match(r"\s*\.minnctapersm (\d+)", line):
            bounds[name] = (bounds[name][0], int(match.group(1)))
    return bounds


def read_library(path: Path) -> list[Kernel]:
    """All kernels of a library, for every architecture it holds machine code for."""
    tool = find_cuobjdump()

    def listing(option: str) -> Iterator[str]:
        with subprocess.Popen([tool, option, str(path)], stdout=subprocess.PIPE, text=True) as run:
            yield from run.stdout or ()
        if run.returncode:
            sys.exit(f"{tool} {option} {path} failed")

    return assemble(
        resources(listing("-res-usage")),
        instructions(listing("-sass")),
        subroutines(listing("-elf")),
        launch_bounds(listing("-ptx")),
    )


def assemble(
    kernels: dict[Key, Kernel],
    opcodes: dict[Key, Counter[str]],
    called: dict[Key, set[str]],
    bounds: dict[str, tuple[int, int]],
) -> list[Kernel]:
    """The kernels with what the four listings say about each."""
    for key, kernel in kernels.items():
        kernel.opcodes = opcodes[key]
        kernel.subroutines = called.get(key, set())
        kernel.threads, kernel.blocks = bounds.get(kernel.mangled, (0, 0))
    return list(kernels.values())


def find_cuobjdump() -> str:
    """The CUDA toolkit's cuobjdump, or the copy that triton (a part of every CUDA torch) brings along."""
    folders = [os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin"]
    if spec := importlib.util.find_spec("triton"):
        folders.append(str(Path(spec.origin or "").parent / "backends/nvidia/bin"))
    tool = shutil.which("cuobjdump") or shutil.which("cuobjdump", path=os.pathsep.join(folders))
    if tool is None:
        sys.exit(
            "no cuobjdump: install the CUDA toolkit's, or run this with a python that has triton"
        )
    return tool


def demangle(names: list[str]) -> dict[str, str]:
    """Mangled name -> name with template arguments, without namespace and parameters: `forward_kernel<float, true>`."""
    run = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return {n: short_name(full) for n, full in zip(names, run.stdout.splitlines(), strict=True)}


def short_name(demangled: str) -> str:
    """`void a::(anonymous namespace)::k<a::T>(int)` -> `k<T>`."""
    name = re.sub(r"\b\w+::(?=\w)", "", demangled.replace("(anonymous namespace)::", ""))
    depth = 0
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            name = name[:i]
            break
    return name.removeprefix("void ")
