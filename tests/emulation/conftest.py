"""Builds the CUDA kernels as CPU code once for all tests of this folder; see build.py and emulation.h."""

# SPDX-License-Identifier: Apache-2.0

import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from build import build


@pytest.fixture(scope="session")
def emulated(tmp_path_factory):
    """The operators' CUDA kernels, thread for thread on the CPU."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    torch.ops.load_library(build(tmp_path_factory.mktemp("emulation")))
    return torch.ops.segfast_emulated
