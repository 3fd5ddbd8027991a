"""Fixtures shared by all tests."""

# SPDX-License-Identifier: Apache-2.0

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from segfast._native import CUDA_STATUS

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state and leaves none behind."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def missing_for_cuda() -> str:
    """What CUDA tests lack here; empty where they can run."""
    if not torch.cuda.is_available():
        return "a CUDA device"
    return "" if CUDA_STATUS == "loaded" else f"the CUDA operators, which are {CUDA_STATUS}"


def pytest_collection_modifyitems(config, items):
    """Skip what this machine cannot run; SEGFAST_REQUIRE_CUDA=1 forbids the CUDA skips."""
    missing = missing_for_cuda()
    for item in items:
        if item.get_closest_marker("cuda") and missing:  # not keywords: a folder's name is one
            if os.environ.get("SEGFAST_REQUIRE_CUDA") == "1":
                pytest.exit(f"SEGFAST_REQUIRE_CUDA=1, but this needs {missing}", returncode=1)
            item.add_marker(pytest.mark.skip(reason=f"needs {missing}"))
        if item.get_closest_marker("shared_data") and not SHARED_DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason="needs the real data sets beside the checkout"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    return SHARED_DATA
