"""The README's numbers are the recorded ones, and ratios are compared with those."""

# SPDX-License-Identifier: Apache-2.0

import json
from pathlib import Path

import pytest

from segfast.bench.baseline import compare
from segfast.bench.records import newest
from segfast.bench.table import render, update

ROOT = Path(__file__).resolve().parents[2]


def row(case, threads, eager_ms, segfast_ms, **more):
    return {
        "op": "some_op", "case": case, "threads": threads, "copy_gbs": 30.0 * threads, "eager_ms": eager_ms,
        "segfast_ms": segfast_ms, "segfast_spread_ms": [segfast_ms - 1, segfast_ms + 1],
        "ratio": eager_ms / segfast_ms, "percent_of_copy": 12.4, **more,
    }  # fmt: skip


@pytest.fixture
def results(tmp_path):
    """A checkout with two folders of results, the newer one of two runs."""
    build = {"cpu_capability": "avx512", "torch_running": "2.13.0", "compiler": "gcc 12"}
    shared = {"device": "Some CPU", "build": build, "commit": "abc1234"}
    rows = [
        row("a", 2, 40.0, 4.0),
        row("a", 1, 60.0, 10.0),
        row("b", 2, 9.0, 3.0),
        row("b", 1, 9.0, 6.0),
    ]
    runner = {"overhead_us": 51.6, "overhead_spread_us": [49.0, 55.0]}
    memory = [
        {"op": "some_op", "case": case, "eager_mib": 100.4, "segfast_mib": 1.6} for case in "ab"
    ]
    memory.append({"op": "some_op", "case": "only segfast", "segfast_mib": 1.6})
    for name, record in {
        "cpu_202611/times": {"rows": []},
        "cpu_202612/times": {"rows": rows, "runner": runner},
        "cpu_202612/memory": {"memory": memory},
        "h200_202701/times": {"rows": []},
    }.items():
        path = tmp_path / "bench" / "results" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(shared | record))
    return tmp_path


def test_the_readme_shows_the_newest_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- results:begin cpu -->" in text
    assert update(text, ROOT) == text, "run python bench/table.py"


def test_render(results):
    lines = render(newest(results, "cpu")).splitlines()
    assert lines[0].startswith(
        "Some CPU, 2 threads, avx512 kernels, torch 2.13.0, gcc 12, commit abc1234;"
    )
    assert lines[0].endswith("a plain copy moves 60-60 GB/s (`bench/results/cpu_202612`).")
    assert lines[2:6] == [
        "| `some_op` | eager ms | segfast ms (p20-p80) | times faster | % of copy | 1 thread: times faster "
        "| MiB beyond inputs and outputs (eager) |",
        "|---|---:|---:|---:|---:|---:|---:|",
        "| a | 40.00 | 4.00 (3.00-5.00) | 10.0 | 12 | 6.0 | 2 (100) |",
        "| b | 9.00 | 3.00 (2.00-4.00) | 3.0 | 12 | 1.5 | 2 (100) |",
    ]
    assert lines[7] == "The Runner adds 52 us (49-55) to an iteration of a bare loop."


def test_update_replaces_only_what_is_marked(results):
    text = "before\n<!-- results:begin cpu -->\nold\n<!-- results:end -->\nafter\n"
    new = update(text, results)
    assert new.startswith("before\n<!-- results:begin cpu -->\nSome CPU")
    assert new.endswith("bare loop.\n<!-- results:end -->\nafter\n")
    assert update(new, results) == new
    with pytest.raises(FileNotFoundError, match="tpu_"):
        update(text.replace("cpu", "tpu"), results)


def test_compare_names_what_fell(results):
    folder = newest(results, "cpu")
    lines = compare(
        {("some_op", "a"): 7.6, ("some_op", "b"): 2.2, ("some_op", "new"): 1.0}, 2, folder
    )
    assert "recorded    10.0 (Some CPU, commit abc1234)" in lines[0]
    assert "FELL" not in lines[0]
    assert lines[1].endswith("FELL by 27%")
    assert "recorded" not in lines[2]
    assert lines[3].startswith("1 of 2 recorded ratios fell by more than 25%")
    assert "FELL" not in compare({("some_op", "a"): 5.0}, 1, folder)[0]  # 6.0 with one thread
