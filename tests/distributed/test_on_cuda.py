"""Two GPUs with nccl against one: the same weights to rounding, the same counts. Skipped where there are fewer."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import spawn
import torch
from blocks import CASES, LENGTHS, SHARDED_CASES

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


def test_two_gpus_are_as_one(tmp_path):
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        spawn.run(processes, "training", folder, SEGFAST_TEST_DEVICE="cuda")
        found[processes] = torch.load(folder / "found0.pt")
    for case in (*CASES, *SHARDED_CASES):
        alone, together = found[1][case.removeprefix("sharded_")], found[2][case]
        for name, value in alone["weights"].items():
            torch.testing.assert_close(together["weights"][name], value, rtol=1e-3, atol=1e-4)
    for size in LENGTHS:
        assert found[2][f"evaluated_{size}"] == found[1][f"evaluated_{size}"]
