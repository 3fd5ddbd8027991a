"""What a bench does around the numbers: check first, take turns, summarise; and the cases it finds."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from segfast.bench import harness
from segfast.bench.harness import Case, Work, assert_close, cases, measure
from segfast.bench.labels import label_map
from segfast.errors import UserError


def logging_case(log, right=True):
    """A case whose calls leave their names in `log`."""

    def check():
        log.append("check")
        assert right, "wrong result"

    work = Work(
        segfast=lambda: log.append("segfast"),
        eager=lambda: log.append("eager"),
        compiled=lambda: lambda: log.append("compiled"),
        check=check,
        floor_bytes=4_000_000,
        elements=1,
    )
    return Case("op", "case", {"dtype": torch.float32, "size": 3}, lambda **_: work)


def test_checks_warms_up_and_takes_turns(monkeypatch):
    monkeypatch.setattr(harness, "LEAST_MS", 0.0)
    log = []
    (row,) = measure(
        logging_case(log), "cpu", rounds=3, compiled=True, copy_gbs={torch.get_num_threads(): 2.0}
    )
    warm_up = [side for side in ("eager", "segfast", "compiled") for _ in range(2)]
    assert log == ["check", *warm_up, *["eager", "segfast", "compiled"] * 3]
    assert row["rounds"] == 3
    assert row["parameters"] == {"dtype": "torch.float32", "size": 3}
    assert row["percent_of_copy"] == pytest.approx(100 * 2.0 / row["segfast_ms"])  # 4 MB at 2 GB/s
    assert row["ratio"] == row["eager_ms"] / row["segfast_ms"]


def test_short_calls_are_repeated(monkeypatch):
    monkeypatch.setattr(harness, "LEAST_MS", 1e9)
    log = []
    (row,) = measure(logging_case(log), "cpu", 2, False, {torch.get_num_threads(): 1.0})
    assert row["rounds"] == 2 * harness.MOST_ROUNDS


def test_one_row_per_number_of_threads():
    threads = torch.get_num_threads()
    seen = []
    case = logging_case([])
    work = case.work("cpu")._replace(segfast=lambda: seen.append(torch.get_num_threads()))
    try:
        rows = measure(case._replace(setup=lambda **_: work), "cpu", 1, False, {2: 1.0, 1: 4.0})
    finally:
        torch.set_num_threads(threads)
    assert [row["threads"] for row in rows] == [2, 1]
    assert set(seen) == {1, 2}
    assert [row["copy_gbs"] for row in rows] == [1.0, 4.0]


def test_a_wrong_result_is_not_timed():
    log = []
    with pytest.raises(AssertionError, match="wrong result"):
        measure(logging_case(log, right=False), "cpu", 1, False, {1: 1.0})
    assert log == ["check"]


def test_summary_is_median_and_p20_to_p80():
    times = {"eager": [10.0, 30.0, 20.0], "segfast": [5.0, 1.0, 2.0, 3.0, 4.0]}
    summary = harness.summary(times)
    assert (summary["eager_ms"], summary["segfast_ms"]) == (20.0, 3.0)
    assert summary["segfast_spread_ms"] == [2.0, 4.0]
    assert summary["ratio"] == pytest.approx(20 / 3)


def test_small_values_are_held_to_the_largest():
    expected = torch.tensor([1.0, 1e-3])
    assert_close([torch.tensor([1.0005, 1e-3 + 9e-5])], [expected], rtol=1e-3)
    with pytest.raises(AssertionError):
        assert_close([torch.tensor([1.002, 1e-3])], [expected], rtol=1e-3)
    with pytest.raises(AssertionError):
        assert_close([torch.tensor([1.0, 1e-3 + 2e-4])], [expected], rtol=1e-3)


def test_cases_by_operator():
    every = cases()
    assert [case.op for case in every] == sorted(case.op for case in every)
    assert {case.op for case in every} == set(harness.op_names())
    assert {case.op for case in cases(["pad_stack"])} == {"pad_stack"}
    assert cases(["upsample_cross_entropy"], "MEMORY_CASES")
    assert not cases(["pad_stack"], "MEMORY_CASES")
    with pytest.raises(UserError, match="did you mean confusion_matrix"):
        cases(["confusion_matrx"])


def test_a_wrong_operator_fails_its_case(monkeypatch):
    """The cases' own checks can fail: pad_stack with another padding."""
    from segfast.bench.ops import bench_pad_stack as bench
    from segfast.ops import pad_stack

    bench.setup(2, "cpu").check()
    monkeypatch.setattr(bench, "pad_stack", lambda maps: pad_stack(maps, pad_value=0))
    with pytest.raises(AssertionError):
        bench.setup(2, "cpu").check()


def test_label_maps():
    smooth = label_map("smooth", (2, 40, 70), 19, "cpu", ignored=False)
    assert smooth.shape == (2, 40, 70)
    assert (smooth[:, :32, :32] == smooth[:, :1, :1]).all()
    assert len(smooth.unique()) <= 2 * 2 * 3
    noise = label_map("noise", (2, 40, 70), 19, "cpu")
    assert (noise[:, ::9] == 255).all()
    assert noise[:, 1::9].unique().tolist() == list(range(19))
