"""The check of the compiled CUDA kernels (.ci/cuda_report.py), on recorded snippets of what the tools print."""

# SPDX-License-Identifier: Apache-2.0

import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KERNEL = (
    "_ZN7segfast50_GLOBAL__N__852c1142_12_pad_stack_cu_cce617d5_2341316pad_stack_kernelIhEEvPT_"
)
ANOTHER = KERNEL.replace("kernelIhE", "kernelItE")

LOG = f"""\
  ptxas info    : Compiling entry function '{KERNEL}' for 'sm_90'
  ptxas info    : Function properties for {KERNEL}
      0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
  ptxas info    : Used 54 registers, used 1 barriers, 256 bytes smem, 360 bytes cmem[0]
"""
RESOURCES = f"""\

Fatbin elf code:
================
arch = sm_90
code version = [1,8]
host = linux
compile_size = 64bit

Resource usage:
 Common:
  GLOBAL:28 CONSTANT[4]:224
 Function {KERNEL}:
  REG:54 STACK:0 SHARED:1280 LOCAL:0 CONSTANT[0]:3688 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS = f"""\

Fatbin elf code:
================
arch = sm_90

	code for sm_90
		Function : {KERNEL}
	.headerflags	@"EF_CUDA_SM90 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM90)"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                /* 0x00000a00ff017b82 */
                                                                         /* 0x000ff00000000800 */
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ; /* 0x0000000402047981 */
        /*0020*/                   LDG.E.U8 R4, desc[UR4][R2.64] ;       /* 0x0000000402047981 */
        /*0030*/              @UP1 STG.E.64 desc[UR4][R6.64+0x8], R8 ;   /* 0x0000080806007986 */
        /*0040*/                   EXIT ;                                /* 0x000000000000794d */
"""
ELF = f"""\
Fatbin elf code:
================
arch = sm_90
 0x25               0               0      0x3        0   0x49     .text.{KERNEL}
 0x26          0x4a80           0x700     0x22        0   0x49     $__internal_0_$__cuda_sm20_div_s64
"""
PTX = f"""\
.entry {KERNEL}(
.param .u64 .ptr .align 1 {KERNEL}_param_0
)
.maxntid 256
.minnctapersm 4
{{
"""
INTENTIONS = "[pad_stack]\npad_stack_kernel = { loads = 16, stores = 8 }\n"


@pytest.fixture(scope="module")
def ci():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / ".ci"))
        yield importlib.import_module("cuda_library"), importlib.import_module("cuda_report")


def read(ci, *, resources=RESOURCES, sass=SASS, elf=ELF, ptx=PTX):
    """The one kernel of the snippets, put together as `read_library` does."""
    library, _ = ci
    ((key, kernel),) = library.resources(resources.splitlines()).items()
    return library.assemble(
        {key: kernel},
        library.instructions(sass.splitlines()),
        library.subroutines(elf.splitlines()),
        library.launch_bounds(ptx.splitlines()),
    )[0]


def problems(ci, *, intentions=INTENTIONS, **snippets):
    kernel = read(ci, **snippets)
    _, lines = ci[1].report(
        [kernel], {kernel.mangled: "pad_stack_kernel<unsigned char>"}, intentions, [90]
    )
    return lines


def test_what_the_tools_print_is_read(ci):
    library, report = ci
    kernel = read(ci)
    assert (kernel.file, kernel.arch, kernel.registers, kernel.shared) == ("pad_stack", 90, 54, 256)
    assert (kernel.threads, kernel.blocks) == (256, 4)
    assert kernel.opcodes["LDG.E.128.CONSTANT"] == kernel.opcodes["STG.E.64"] == 1
    assert kernel.opcodes.total() == 5
    assert kernel.subroutines == {"__cuda_sm20_div_s64"}
    assert (report.loads(kernel), report.stores(kernel)) == (16, 8)
    assert library.spills(LOG.splitlines()) == ({KERNEL: {90}}, [])


def test_a_kernel_as_intended_passes_and_is_listed(ci):
    kernel = read(ci)
    rows, lines = ci[1].report(
        [kernel], {KERNEL: "pad_stack_kernel<unsigned char>"}, INTENTIONS, [90]
    )
    assert lines == []
    assert rows[1] == [
        "pad_stack: pad_stack_kernel", "1", "256 x 4", "54", "4", "256", "16", "8", "0", "div_s64",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("opcodes", "expected"),
    [
        (["LDG.E", "STG.E.U8"], (4, 1)),
        (["LDG.E.64.SYS", "LDG.E.S16", "ST.E.64"], (8, 8)),
        (["LDGSTS.E.BYPASS.128", "STG.E.EF.128"], (16, 16)),
        (["LDG.E.ENL2.256", "UBLKCP.G.S"], (32, 16)),
        (["UBLKCP.S.G", "LDS.128", "STS.128", "LDC.64"], (16, 0)),
    ],
    ids=str,
)
def test_width_of_accesses(ci, opcodes, expected):
    kernel = ci[0].Kernel("k", 90, 32, 0, 0, 0, opcodes=Counter(opcodes))
    assert (ci[1].loads(kernel), ci[1].stores(kernel)) == expected


def test_spills_are_found_in_the_log(ci):
    log = LOG.replace("0 bytes spill stores", "12 bytes spill stores")
    assert "12 bytes spill stores" in ci[0].spills(log.splitlines())[1][0]


@pytest.mark.parametrize(
    ("snippets", "reason"),
    [
        ({"resources": RESOURCES.replace("STACK:0", "STACK:48")}, "local memory: 48 bytes, 0 accesses"),
        ({"sass": SASS.replace("LDG.E.U8", "LDL.64")}, "local memory: 0 bytes, 1 accesses"),
        ({"resources": RESOURCES.replace("REG:54", "REG:66")}, "3 blocks of 256 threads fit an SM, 4 are meant"),
        ({"resources": RESOURCES.replace("1280", "60000")}, "3 blocks of 256 threads fit an SM, 4 are meant"),
        ({"sass": SASS.replace(".128", "")}, "the widest global load has 4 bytes, 16 are meant"),
        ({"sass": SASS.replace("STG.E.64", "STG.E.U16")}, "the widest global store has 2 bytes, 8 are meant"),
        ({"sass": SASS.replace("LDC ", "DADD ")}, "1 double-precision instructions, none are meant"),
        ({"elf": ELF.replace("__internal_0_$__cuda_sm20_div_s64", "k$_Z5helpf")}, "calls _Z5helpf, not inlined"),
        ({"ptx": PTX.replace(".minnctapersm 4", "")}, "no __launch_bounds__"),
        ({"ptx": PTX.replace(".maxntid 256", "")}, "no __launch_bounds__"),
        ({"resources": RESOURCES.replace("sm_90", "sm_990")}, "the limits of this architecture are unknown"),
        ({"intentions": "[pad_stack]\n"}, "no intention: add a line under [pad_stack]"),
        ({"intentions": INTENTIONS + "gone_kernel = { loads = 0, stores = 0 }"}, "gone_kernel: no kernel has this name"),
    ],
)  # fmt: skip
def test_what_is_not_as_intended_is_named(ci, snippets, reason):
    lines = problems(ci, **snippets)
    assert len(lines) == 1
    assert reason in lines[0]


def test_intentions_can_say_more(ci):
    def with_row(row):
        return problems(
            ci, intentions=f"[pad_stack]\npad_stack_kernel = {{ loads = 0, stores = 0, {row} }}"
        )

    assert with_row("shared = 49152, blocks = { sm_90 = 4, other = 8 }") == []
    assert "4 blocks of 256 threads fit" in with_row("blocks = { other = 8 }")[0]
    assert "3 blocks of 256 threads fit" in with_row("shared = 60000")[0]
    doubles = "[pad_stack]\n'pad_stack_kernel<.*>' = { loads = 0, stores = 0, double = true }"
    assert problems(ci, intentions=doubles, sass=SASS.replace("LDC ", "DFMA ")) == []


def test_the_blocks_that_fit_follow_each_limit(ci):
    library, report = ci

    def fit(arch, *, threads=256, registers=32, shared=0):
        kernel = library.Kernel("k", arch, registers, 0, shared, 0, threads, 1)
        return report.resident_blocks(kernel, 0)

    assert fit(90) == 8  # 2048 threads; just as many registers
    assert fit(75) == 4  # 1024 threads
    assert fit(86) == 6  # 1536 threads
    assert fit(90, registers=33) == 6  # rounded up to 40: 1280 a warp, 51 warps, in fours 48
    assert fit(90, threads=32, registers=16) == 32  # no SM holds more blocks
    assert fit(90, shared=48 << 10) == 4  # 228 KB, and 1 KB a block for the system
    assert fit(75, shared=32 << 10) == 2  # 64 KB, nothing reserved


def test_names_lose_namespace_and_parameters(ci):
    short = ci[0].short_name
    assert (
        short("void segfast::(anonymous namespace)::k<segfast::T, true>(segfast::A<int>)")
        == "k<T, true>"
    )
    assert short("segfast::finish(int, (anonymous namespace)::B*)") == "finish"
    assert short("void segfast::k<(segfast::Kind)1, 4>(long)") == "k<(Kind)1, 4>"


def kernels_of(path):
    """Names of the kernels that a source file defines."""
    text = path.read_text(encoding="utf-8")
    return set(re.findall(r"__global__ void(?:\s+__launch_bounds__\([^)]*\))?\s+(\w+)\(", text))


def test_every_kernel_has_an_intention_and_the_other_way_round(ci):
    """Found here without a compiler; what the numbers are worth is for cuda_report.py to say."""
    table = ci[1].read_intentions(ci[1].INTENTIONS.read_text(encoding="utf-8"))
    kernels = {path.stem: kernels_of(path) for path in ROOT.glob("csrc/cuda/*.cu")}
    in_headers = set().union(*map(kernels_of, ROOT.glob("csrc/cuda/*.cuh")))
    # A pattern may stand for several kernels: "(planes|pixels)_kernel<float, .*>".
    matched: dict[str, set[str]] = {}
    for file, rows in table.items():
        for pattern, _ in rows:
            name = re.compile(pattern.split("<")[0])
            found = {k for k in kernels.get(file, set()) | in_headers if name.fullmatch(k)}
            assert found, f".ci/cuda_kernels.toml: [{file}] names {pattern}, which is gone"
            matched.setdefault(file, set()).update(found)
    for file, names in kernels.items():
        missing = names - matched.get(file, set())
        assert not missing, f"{sorted(missing)}: add lines under [{file}] in .ci/cuda_kernels.toml"
    missing = in_headers - set().union(*matched.values())
    assert not missing, f"{sorted(missing)}: add lines in .ci/cuda_kernels.toml"
