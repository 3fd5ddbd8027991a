"""Fixtures shared by all tests."""

# SPDX-License-Identifier: Apache-2.0

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

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


def pytest_collection_modifyitems(config, items):
    """Skip what this machine cannot run; SEGFAST_REQUIRE_CUDA=1 forbids the CUDA skips."""
    no_cuda = not torch.cuda.is_available()
    for item in items:
        if item.get_closest_marker("cuda") and no_cuda:  # not keywords: a folder's name is one
            if os.environ.get("SEGFAST_REQUIRE_CUDA") == "1":
                pytest.exit("SEGFAST_REQUIRE_CUDA=1, but torch sees no CUDA device", returncode=1)
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("shared_data") and not SHARED_DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason="needs the real data sets beside the checkout"))


@pytest.fixture
def shared_data() -> Path:
    return SHARED_DATA
