"""Pixels counted in the lanes of a vector: more than 32 bits hold."""

# SPDX-License-Identifier: Apache-2.0

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import SANITIZERS

HERE = Path(__file__).parent


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_counts_do_not_overflow(tmp_path):
    program = tmp_path / "lane_counts"
    command = ["g++", "-std=gnu++17", "-O1", "-Wno-psabi", *SANITIZERS]
    command.append(f"-I{HERE.parents[1] / 'csrc'}")
    subprocess.run([*command, str(HERE / "lane_counts.cpp"), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
