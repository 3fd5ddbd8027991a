"""The CPU kernels' own exp2 and log: at most 2 ulp on every instruction set, subnormals and special values right."""

# SPDX-License-Identifier: Apache-2.0

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import SANITIZERS

import segfast

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = {
    "baseline": [],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("isa", FLAGS)
def test_error_in_ulp(isa, tmp_path):
    if isa != "baseline" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("x86 only")
    if list(FLAGS).index(isa) > list(FLAGS).index(segfast.build_info()["cpu_capability"]):
        pytest.skip("this machine (or SEGFAST_CPU_CAPABILITY) has no " + isa)
    program = tmp_path / "vector_math"
    command = ["g++", "-std=gnu++17", "-O3", "-fno-math-errno", "-Wno-psabi", *FLAGS[isa]]
    command += SANITIZERS
    subprocess.run(
        [*command, f"-I{CSRC}", str(HERE / "vector_math.cpp"), "-o", str(program)], check=True
    )
    done = subprocess.run([str(program)], capture_output=True, text=True, check=True)
    exp2_ulp, log_ulp, special = done.stdout.split()
    print(isa, done.stdout)
    assert float(exp2_ulp) <= 2
    assert float(log_ulp) <= 2
    assert special == "1"
