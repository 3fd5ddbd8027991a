"""`segfast bench` from the outside: the table, the JSON, one line for a mistake; memory and the Runner's cost measured small."""

# SPDX-License-Identifier: Apache-2.0

import json

import pytest
import torch

from segfast.bench import runner
from segfast.bench.harness import cases
from segfast.bench.memory import measure_memory
from segfast.cli import main


@pytest.fixture(autouse=True)
def _threads():
    """Commands set the number of threads; the other tests keep theirs."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_table_and_json(tmp_path, capsys):
    path = tmp_path / "new" / "times.json"
    arguments = ["bench", "pad_stack", "--threads", "2,1", "--rounds", "1", "--json", str(path)]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "pad_stack" in lines
    shown = [line for line in lines if line.startswith("  8 uint8 maps")]
    assert [line.split()[6] for line in shown] == ["2", "1"]
    record = json.loads(path.read_text())
    assert record["build"]["torch_running"] == torch.__version__
    assert {"device", "cpus", "python", "commit", "date"} <= record.keys()
    assert [row["threads"] for row in record["rows"]] == [2, 1]
    row = record["rows"][0]
    assert f"{row['ratio']:.1f}" in shown[0].split()
    assert row["parameters"] == {"count": 8}
    assert "runner" not in record


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["pad_stck"], "did you mean pad_stack"),
        (["--threads", "two"], "--threads: expected numbers such as 2 or 2,1, got 'two'"),
        (["--threads", "0"], "--threads"),
        (["--rounds", "0"], "--rounds: expected at least 1, got 0"),
        (["--device", "cuda", "runner"], "CUDA"),
    ],
)
def test_mistakes_in_one_line(arguments, problem, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("segfast: error: ")
    assert problem in error
    assert error.count("\n") == 1


def test_compiled_needs_a_compiler(capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["bench", "pad_stack", "--compiled"]) == 2
    assert "there is no no-such-compiler" in capsys.readouterr().err


def test_memory_of_both_sides():
    """Eager writes log-probabilities of the logits' size; segfast keeps a few bytes per pixel."""
    (case,) = (case for case in cases(["cross_entropy"]) if case.name == "2x150x256x256 float32")
    row = measure_memory(case, 1, ("eager", "segfast"))
    logits_mib = 2 * 150 * 256 * 256 * 4 / 2**20
    assert row["output_mib"] == pytest.approx(logits_mib, rel=1e-3)
    assert row["eager_mib"] >= logits_mib
    assert 0 < row["segfast_mib"] <= 0.1 * logits_mib


@pytest.mark.slow
def test_a_large_case_stays_within_a_gibibyte():
    """Eager holds several tensors of 2.5 GB for it."""
    (case,) = cases(["upsample_cross_entropy"], "MEMORY_CASES")
    row = measure_memory(case, 2, ("segfast",))
    assert row["segfast_mib"] <= 1024
    assert row["output_mib"] == pytest.approx(150, rel=1e-3)


def test_memory_reports_what_went_wrong():
    (case,) = cases(["pad_stack"])
    with pytest.raises(RuntimeError, match=r"(?s)pad_stack, 8 uint8 maps .*no_such_side"):
        measure_memory(case, 1, ("no_such_side",))


def test_runner_overhead(monkeypatch, capsys):
    monkeypatch.setattr(runner, "SKIP", 2)
    monkeypatch.setattr(runner, "ITERATIONS", 20)
    assert main(["bench", "runner", "--rounds", "3", "--threads", "1"]) == 0
    assert "us in the Runner" in capsys.readouterr().out
    summary = runner.measure_runner(3)
    assert summary["runner_us"] > 10
    assert summary["bare_us"] > 10
    low, high = summary["overhead_spread_us"]
    assert low <= summary["overhead_us"] <= high
