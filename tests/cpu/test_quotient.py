"""The division of integers by a channel's std in four multiplications: the same bits as a division."""

# SPDX-License-Identifier: Apache-2.0

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import SANITIZERS

HERE = Path(__file__).parent


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_quotient_is_the_division(tmp_path):
    program = tmp_path / "quotient"
    command = ["g++", "-std=c++17", "-O2", "-ffp-contract=off", *SANITIZERS]
    command.append(f"-I{HERE.parents[1] / 'csrc'}")
    subprocess.run([*command, str(HERE / "quotient.cpp"), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=True)
    accepted, compared, different = (int(number) for number in done.stdout.split())
    assert accepted > 35000
    assert compared > 35_000_000
    assert different == 0
