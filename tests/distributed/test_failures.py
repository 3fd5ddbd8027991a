"""A process that fails, is killed or is told to stop: all end soon, with its message and once."""

# SPDX-License-Identifier: Apache-2.0

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import spawn
import torch

LIMIT_S = 30  # from the failure to the end of the last process
KILLED = "ended without a message (killed? out of memory?)"


def fail(folder, processes, how, rank):
    """(exit status, stdout, stderr) of each; checks how long it took them to end."""
    results = spawn.finish(spawn.start(processes, "failing", folder, f'"{how}"', rank))
    seconds = time.time() - float((folder / "failed_at").read_text())
    print(f"{processes} processes, {how} in {rank}: all ended after {seconds:.1f} s")
    assert seconds < LIMIT_S
    return results


def test_an_exception_ends_all_with_its_message(tmp_path):
    results = fail(tmp_path, 2, "raise", 1)
    assert [result[0] for result in results] == [1, 1]
    assert "RuntimeError: the cat sat on the keyboard" in results[1][2]
    assert results[0][2].strip() == ""
    text = "error: process 1 failed: RuntimeError: the cat sat on the keyboard; all processes end"
    assert text in (tmp_path / "run" / "log.txt").read_text()


def test_a_loss_that_is_not_finite_in_one_stops_all_with_its_images(tmp_path):
    results = fail(tmp_path, 2, "nan", 7)  # sample 7
    told = [line for result in results for line in result[2].splitlines() if "became nan" in line]
    assert len(told) == 1
    assert "sample 7" in told[0]
    assert all(result[0] != 0 for result in results)
    (saved,) = (tmp_path / "run").glob("nonfinite_iter_*.pth")
    assert "sample 7" in torch.load(saved, weights_only=True)["nonfinite"]["files"]


@pytest.mark.parametrize(
    ("processes", "rank", "how"),
    [(4, 2, "SIGKILL"), (2, 0, "SIGKILL"), (2, 1, "SIGKILL beside a worker")],
)
def test_a_killed_process_ends_all(tmp_path, processes, rank, how):
    """Also where a worker of the killed process reads on for a minute, with what it inherited."""
    results = fail(tmp_path, processes, how, rank)
    assert [result[0] for result in results] == [-9 if r == rank else 1 for r in range(processes)]
    errors = "".join(result[2] for result in results)
    assert errors.count(f"segfast: error: process {rank} {KILLED}; all processes end") == 1
    assert "Traceback" not in errors


def test_a_signal_to_one_stops_all_in_good_order(tmp_path):
    results = fail(tmp_path, 2, "SIGTERM", 1)
    assert [result[0] for result in results] == [143, 143]
    assert [result[2].strip() for result in results] == ["", ""]
    assert (
        "SIGTERM: training stopped after iteration 6" in (tmp_path / "run" / "log.txt").read_text()
    )
    checkpoint = torch.load(tmp_path / "run" / "iter_6.pth", weights_only=True)
    assert len(checkpoint["others"]) == 1


CONFIG = """
import sys
sys.path.insert(0, {tests!r})
import blocks
globals().update(blocks.config({work_dir!r}, 2, quiet=False))
train_dataloader["num_workers"] = 1
train_dataloader["dataset"]["fail_at"] = {fail_at}
del sys, blocks
"""


def torchrun(folder, fail_at=None):
    """`torchrun --no-python segfast train CONFIG`, but for where the command lies; workers read the data."""
    text = CONFIG.format(
        tests=str(Path(__file__).parent), work_dir=str(folder / "run"), fail_at=fail_at
    )
    (folder / "config.py").write_text(text)
    command = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(spawn.free_port()),
        "--no-python",
    ]
    segfast = [sys.executable, "-P", "-m", "segfast"]  # -P: not the sources in this folder
    return subprocess.run(
        [sys.executable, *command, *segfast, "train", str(folder / "config.py")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_torchrun_trains(tmp_path):
    result = torchrun(tmp_path)
    assert result.returncode == 0, result.stderr
    assert "on cpu, 2 processes" in result.stdout
    assert result.stdout.count("everything is in") == 1
    assert (tmp_path / "run" / "iter_6.pth").is_file()


def test_torchrun_reports_a_broken_file_once(tmp_path):
    result = torchrun(tmp_path, fail_at=5)
    assert result.returncode != 0
    told = [line for line in result.stderr.splitlines() if "image_5.png: cannot be decoded" in line]
    assert len(told) == 1, result.stderr
    assert told[0].startswith("segfast: error: process ")
