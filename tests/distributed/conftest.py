"""One start of one, two and four processes for all tests of what ends well."""

# SPDX-License-Identifier: Apache-2.0

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import spawn


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Number of processes -> folder in which they have worked; four of them also resumed what one had begun."""
    made = {}
    for processes in (1, 2, 4):
        made[processes] = tmp_path_factory.mktemp(f"processes{processes}")
        earlier = [f'"{made[1]}"'] if processes == 4 else []
        spawn.run(processes, "training", made[processes], *earlier)
    return made


@pytest.fixture(scope="session")
def found(folders):
    """Number of processes -> by rank what each has found."""
    return {
        processes: [torch.load(folder / f"found{rank}.pt") for rank in range(processes)]
        for processes, folder in folders.items()
    }
