"""Two and four processes against one: the same weights to rounding, the same counts to the integer, the same decisions."""

# SPDX-License-Identifier: Apache-2.0

import json

import pytest
import torch
from blocks import CASES, EXACT, GO_ON, LENGTHS, SHARDED_CASES, config

from segfast.runner import Runner

SEVERAL = (2, 4)


def assert_close(actual, expected):
    assert list(actual["weights"]) == list(expected["weights"])
    for name, value in expected["weights"].items():
        torch.testing.assert_close(actual["weights"][name], value, rtol=0, atol=2e-6, msg=name)


def assert_same_bits(actual, expected):
    for name, value in expected["weights"].items():
        assert torch.equal(actual["weights"][name], value), name


@pytest.mark.parametrize("processes", SEVERAL)
@pytest.mark.parametrize("case", [*CASES, *SHARDED_CASES])
def test_processes_that_share_the_batch_train_as_one(found, processes, case):
    alone = found[1][0][case.removeprefix("sharded_")]
    assert alone["iter"] == 6
    for part in found[processes]:
        assert part[case]["iter"] == 6
        assert_close(part[case], alone)
        assert_same_bits(part[case], found[processes][0][case])


@pytest.mark.parametrize("processes", SEVERAL)
@pytest.mark.parametrize("size", LENGTHS)
def test_metrics_are_those_of_one_process(found, processes, size):
    alone = found[1][0][f"evaluated_{size}"]
    assert alone["seen"] == list(range(size))
    assert sum(map(sum, alone["counts"])) == size * 16 * 16
    for part in found[processes]:
        assert part[f"evaluated_{size}"] == alone


@pytest.mark.parametrize("processes", SEVERAL)
def test_all_decide_alike(found, processes):
    for case in CASES:
        first, *others = [(part[case]["metrics"], part[case]["best"]) for part in found[processes]]
        assert first[1] is not None
        assert others == [first] * (processes - 1)


@pytest.mark.parametrize("processes", SEVERAL)
def test_the_first_process_alone_writes(folders, processes):
    for folder in (path for path in folders[processes].iterdir() if path.is_dir()):
        assert [path.name for path in folder.iterdir()] == ["rank0"]


@pytest.mark.parametrize("processes", SEVERAL)
@pytest.mark.parametrize("case", list(CASES))
def test_files_and_logs_are_those_of_one_process(folders, processes, case):
    mine, alone = (folders[n] / case / "rank0" for n in (processes, 1))
    assert {p.name for p in mine.iterdir()} == {p.name for p in alone.iterdir()}
    records, expected = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (mine, alone)
    )
    assert len(records) == len(expected) == 4
    for record, other in zip(records, expected, strict=True):
        assert list(record) == list(other)
        # A mean leaves NaN out: of a whole batch here, of one process's share of it there.
        if record["mode"] == "train" and case != "skipping":
            assert record["loss"] == pytest.approx(other["loss"], abs=1e-6)
            assert record["acc_seg"] == pytest.approx(other["acc_seg"], abs=0.2)


@pytest.mark.parametrize("processes", SEVERAL)
@pytest.mark.parametrize("case", SHARDED_CASES)
def test_a_sharded_run_leaves_the_files_of_a_plain_one(folders, processes, case):
    def file(of, name):
        return torch.load(folders[of] / name / "rank0" / "iter_3.pth", weights_only=True)

    sharded, plain = file(processes, case), file(1, case.removeprefix("sharded_"))
    assert set(sharded) == set(plain)
    for part in ("state_dict", "gradients", "ema_state_dict"):
        assert list(sharded.get(part, ())) == list(plain.get(part, ()))
    assert list(sharded["optimizer"]["state"]) == list(plain["optimizer"]["state"])
    for key, value in plain["state_dict"].items():
        torch.testing.assert_close(sharded["state_dict"][key], value, rtol=0, atol=2e-6)


@pytest.mark.parametrize("processes", [1, *SEVERAL])
@pytest.mark.parametrize("case", EXACT)
def test_as_many_processes_resume_to_the_bit(found, processes, case):
    for part in found[processes]:
        assert_same_bits(part[f"{case}_resumed"], part[case])
    if processes > 1:
        assert len({part["seed"] for part in found[processes]}) == processes  # diff_rank_seed


@pytest.mark.parametrize("case", GO_ON)
def test_four_processes_go_on_where_one_stopped(folders, found, case):
    alone = found[1][0][case.removeprefix("sharded_")]
    for part in found[4]:
        assert part[f"{case}_resumed"]["iter"] == 6
        assert_close(part[f"{case}_resumed"], alone)
    log = (folders[4] / f"{case}_resumed" / "rank0" / "log.txt").read_text()
    assert (
        "iteration 3; 4 processes go on where 1 stopped, with as many samples an iteration" in log
    )
    assert "streams (dropout, mixed batches) of processes 1 to 3 start afresh" in log


@pytest.mark.parametrize("case", ["accumulating", "epochs", "sharded_averaged", "sharded_adam"])
def test_one_process_goes_on_where_four_stopped(folders, found, tmp_path, case):
    name = case.removeprefix("sharded_")
    file = folders[4] / case / "rank0" / "iter_3.pth"
    runner = Runner.from_cfg(config(tmp_path, **CASES[name]), load_from=file, resume=True)
    runner.train()
    assert_close({"weights": runner.model.state_dict()}, found[1][0][name])


def test_another_batch_goes_on_at_the_same_sample(folders, tmp_path):
    changed = config(tmp_path, **CASES["epochs"])
    changed["train_dataloader"]["batch_size"] = 6
    file = folders[4] / "epochs" / "rank0" / "iter_3.pth"  # the end of the first epoch
    runner = Runner.from_cfg(changed, load_from=file, resume=True)
    runner.train()
    assert (runner.iter, runner.epoch) == (3 + 2, 2)
    assert "with 6 samples instead of 4 an iteration" in (tmp_path / "log.txt").read_text()
