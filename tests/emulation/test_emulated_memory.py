"""What the emulated CUDA kernels read: nothing outside their inputs."""

# SPDX-License-Identifier: Apache-2.0

import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


def test_nothing_outside_the_inputs_is_read(emulated):
    library = next(path for path in torch.ops.loaded_libraries if "segfast_emulated" in path)
    command = [sys.executable, str(HERE / "guarded_memory.py"), library]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr or "a byte outside an input was read"
    assert int(done.stdout) > 1500
