"""Translates csrc/cuda into C++ for the emulation, compiles it, and registers it as torch.ops.segfast_emulated.

The translation is textual and small: launches become calls, dynamic shared memory a pointer, the CUDA dispatch key the
CPU's in a namespace of its own. Everything else is the shipped source, compiled as it is.
"""

# SPDX-License-Identifier: Apache-2.0

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
_LAUNCH_HEADER = """#pragma once
#include "emulation.h"
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <algorithm>
#include "base/check.h"
#define STD_CUDA_CHECK(call) (call)
#define STD_CUDA_KERNEL_LAUNCH_CHECK() (void)0
namespace segfast {
struct DeviceGuard { explicit DeviceGuard(int) {} };
inline cudaStream_t current_stream(const Tensor&) { return nullptr; }
inline int64_t shared_bytes_for(int blocks) { return (100 << 10) / blocks - 1024; }  // as sm_86 has
template <class Kernel>
void allow_shared(Kernel*, size_t bytes) { emulation::allowed_shared = bytes; }
inline int multiprocessors() { return 4; }
inline unsigned blocks_for(int64_t work, int64_t per_block, int64_t most) {
  return static_cast<unsigned>(std::clamp<int64_t>((work + per_block - 1) / per_block, 1, most));
}
}
"""


def translate(source: str) -> str:
    """One file of csrc/cuda as C++."""
    source = source.replace("#if defined(__CUDACC__)", "#if 1")
    source = source.replace(
        "STABLE_TORCH_LIBRARY_IMPL(segfast, CUDA, m)",
        "STABLE_TORCH_LIBRARY_IMPL(segfast_emulated, CPU, m)",
    )
    source = re.sub(
        r"DeviceType::CUDA,\s*images\[0\]\.get_device_index\(\)", "DeviceType::CPU, 0", source
    )
    source = re.sub(
        r"extern __shared__ (\w+) (\w+)\[\];",
        r"\1* \2 = emulation::dynamic_shared<\1>();",
        source,
    )
    while (at := source.find("<<<")) >= 0:
        begin = max(source.rfind(mark, 0, at) for mark in (";", "{", "}")) + 1
        kernel = source[begin:at]
        config_end = source.index(">>>", at)
        config = source[at + 3 : config_end]
        end, depth = config_end + 3, 0
        while True:
            depth += {"(": 1, ")": -1}.get(source[end], 0)
            end += 1
            if depth == 0:
                break
        arguments = source[config_end + 3 : end]
        grid, block, shared, _stream = _split(config)
        # Arguments are evaluated once, at the launch, as CUDA copies them.
        call = (
            f"emulation::with_copies([&](auto... launched) {{ emulation::launch({grid}, {block}, {shared}, "
            f"[&] {{ ({kernel.strip()})(launched...); }}); }}, {arguments[1:-1]})"
        )
        source = source[:begin] + "\n  " + call + source[end:]
    return '#include "emulation.h"\n' + source


def _split(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, "<": 1, ")": -1, ">": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def build(folder: Path) -> Path:
    """Compile into `folder` and return the library."""
    (folder / "cuda").mkdir(parents=True, exist_ok=True)
    sources = []
    for path in sorted((CSRC / "cuda").iterdir()):
        target = folder / "cuda" / (path.stem + ".cpp" if path.suffix == ".cu" else path.name)
        target.write_text(translate(path.read_text(encoding="utf-8")), encoding="utf-8")
        if path.suffix == ".cu":
            sources.append(target)
    library = folder / "library.cpp"
    text = (CSRC / "library.cpp").read_text(encoding="utf-8")
    library.write_text(
        text.replace(
            "STABLE_TORCH_LIBRARY(segfast, m)", "STABLE_TORCH_LIBRARY(segfast_emulated, m)"
        )
    )
    (folder / "cuda" / "launch.cuh").write_text(_LAUNCH_HEADER, encoding="utf-8")
    for name in ("cuda_runtime.h", "cuda_fp16.h", "cuda_bf16.h"):
        (folder / name).write_text('#pragma once\n#include "emulation.h"\n', encoding="utf-8")
    include = Path(torch.__file__).parent / "include"
    flags = [
        "-std=c++17",
        "-O1",
        "-g",
        "-fPIC",
        "-w",
        f"-I{folder}",
        f"-I{HERE}",
        f"-I{CSRC}",
        f"-isystem{include}",
    ]
    flags.append("-DTORCH_TARGET_VERSION=0x020b000000000000")

    def compile_one(source: Path) -> str:
        target = source.with_suffix(".o")
        subprocess.run(["g++", *flags, "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, [library, *sources]))
    shared = folder / "libsegfast_emulated.so"
    torch_lib = Path(torch.__file__).parent / "lib"
    link = ["g++", "-shared", *objects, "-o", str(shared), f"-L{torch_lib}", "-ltorch_cpu"]
    subprocess.run(link, check=True)
    return shared
