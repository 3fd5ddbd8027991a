"""`pytest bench`: says in the JSON what was built, and at the end compares ratios to eager with the recorded ones."""

# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import pytest
import torch

from segfast._native import build_info
from segfast.bench.baseline import compare
from segfast.bench.records import newest

ROOT = Path(__file__).resolve().parents[1]
MEDIANS = pytest.StashKey()  # (op, case) -> {side: median seconds}


def pytest_configure(config):
    config.stash[MEDIANS] = {}


@pytest.fixture
def medians(request):
    """Where a test leaves its median."""
    return request.config.stash[MEDIANS]


def pytest_benchmark_update_machine_info(machine_info):
    machine_info |= {"segfast": build_info(), "threads": torch.get_num_threads()}


def pytest_terminal_summary(terminalreporter, config):
    ratios = {
        key: sides["eager"] / sides["segfast"]
        for key, sides in config.stash[MEDIANS].items()
        if len(sides) == 2
    }
    if ratios:
        terminalreporter.section("times faster than eager")
        for line in compare(ratios, torch.get_num_threads(), newest(ROOT, "cpu")):
            terminalreporter.write_line(line)
