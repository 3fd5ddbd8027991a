"""Bars and Markdown of a GPU record: met, missed, not shown; the present kernels or others; none at all."""

# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from segfast.bench.gpu_proof import bars, report
from segfast.bench.source_tree import tree_hash
from segfast.bench.table import render_gpu, update

LARGE = "16x150x128x128 -> 512x512"


def row(op, case, **values):
    made = {
        "op": op, "case": case, "eager_ms": 30.0, "compiled_ms": 12.0, "segfast_ms": 2.0, "segfast_spread_ms": [1.9, 2.1],
        "ratio": 15.0, "percent_of_copy": 90.0, "eager_mib": 8000.0, "segfast_mib": 40.0, "eager_kernels": 9,
        "segfast_kernels": 2, "same_bits": True,
    }  # fmt: skip
    return made | values


def side(ms, **values):
    return {"ms": ms, "spread_ms": [ms, ms], "images_per_s": 16e3 / ms, **values}


@pytest.fixture
def record():
    """A record that meets every bar."""
    ops = [
        "normalize_pad_stack",
        "confusion_matrix",
        "cross_entropy",
        "upsample_argmax",
        "upsample_confusion_matrix",
    ]
    rows = [row(op, case) for op in ops for case in ("a", "b")]
    rows += [row("upsample_cross_entropy", f"{LARGE} {dtype}") for dtype in ("float32", "bfloat16")]
    rows += [row("upsample_cross_entropy", "small", ratio=2.0)]
    part = {
        "eager": side(100.0, peak_mib=9000.0, syncs=34.0),
        "segfast": side(50.0, peak_mib=3000.0, syncs=0.0),
        "ratio": 2.0,
    }
    return {
        "kind": "gpu", "quick": False, "csrc": "c" * 40, "commit": "abc1234", "date": "2027-01-02", "copy_gbs": 4300.0,
        "facts": {
            "device": "Some GPU", "driver": "580.1", "cuda": "13.0", "capability": "9.0",
            "build": {"torch_running": "2.11.0", "cuda": "13.0.48"},
        },
        "stages": {"build": {"status": "passed", "seconds": 61.2, "text": "by pip"}},
        "rows": rows, "problems": {},
        "step": {
            "plan": {"batch": 16, "size": [512, 512], "num_classes": 150}, "parameters": 28_000_000, "amp": "bfloat16",
            "sync_counter_works": True, "train": part, "val": part, "train_with_loading": part,
        },
    }  # fmt: skip


def met(record):
    return {bar["bar"]: bar["met"] for bar in bars.evaluate(record)}


def only(record, value):
    """The bars that are not met, all of which are `value`."""
    others = {bar: state for bar, state in met(record).items() if state is not True}
    assert set(others.values()) <= {value}
    return list(others)


def test_all_met(record):
    assert set(met(record).values()) == {True}
    assert len(met(record)) == 12


def test_one_case_below_a_bar_misses_it(record):
    record["rows"][1]["percent_of_copy"] = 84.9
    assert only(record, False) == ["`normalize_pad_stack`: 85 % of the copy bandwidth"]
    text = next(bar["measured"] for bar in bars.evaluate(record) if bar["met"] is False)
    assert text == "84.9 (b) to 90.0; 1 of 2 cases"


@pytest.mark.parametrize(("key", "value", "words"), [
    ("ratio", 9.9, "eager's speed"),
    ("compiled_ms", 7.9, "torch.compile's speed"),
    ("segfast_mib", 401.0, "less extra memory"),
    ("same_bits", False, "the same bits"),
])  # fmt: skip
def test_each_number_counts(record, key, value, words):
    next(r for r in record["rows"] if r["case"] == f"{LARGE} bfloat16")[key] = value
    (missed,) = only(record, False)
    assert words in missed


def test_what_was_not_measured_is_not_met(record):
    for r in record["rows"]:
        if r["op"] == "cross_entropy":
            del r["compiled_ms"]
            break
    assert only(record, None) == ["`cross_entropy`: 1.3 times torch.compile's speed"]
    record["problems"] = {
        "upsample_argmax: c": ["OutOfMemoryError"],
        "upsample_argmax: a": ["compile"],
    }
    states = met(record)
    assert states["`upsample_argmax`: 10 times eager's speed"] is None
    record["rows"] = []
    assert set(met(record).values()) == {None, True}  # True: no host sync
    assert bars.evaluate({"kind": "gpu"})[0] == {
        "bar": "`normalize_pad_stack`: 85 % of the copy bandwidth", "measured": "-", "met": None
    }  # fmt: skip


def test_waits(record):
    step = record["step"]
    step["train_with_loading"] = {**step["train"], "segfast": side(50.0, syncs=0.2)}
    assert only(record, False) == ["no host sync in a training iteration between two log lines"]
    del step["train_with_loading"]
    assert only(record, None) == ["no host sync in a training iteration between two log lines"]
    step["sync_counter_works"] = False  # then 0 means nothing
    assert len(only(record, None)) == 2


def test_a_dry_run_shows_nothing(record):
    record["kind"] = "dry_run"
    record["step"] = {}
    assert set(met(record).values()) == {None}


def test_markdown(record):
    record["bars"] = bars.evaluate(record)
    del record["rows"][0]["compiled_ms"]
    text = report.render(record, "c" * 40)
    lines = text.splitlines()
    assert lines[0] == (
        "Some GPU (sm_90, driver 580.1); torch 2.11.0, CUDA 13.0, nvcc 13.0.48; 2027-01-02, commit abc1234; "
        "a plain copy moves 4300 GB/s. Recorded for csrc cccccccccccc: the present kernels."
    )
    assert "- build: passed (61 s): by pip" in lines
    assert "| no host sync in a validation batch | 0 | yes |" in lines
    assert "| a | 30.000 | - | 2.000 (1.900-2.100) | 15.0 | 90 | 40.0 (8000.0) | 2 (9) |" in lines
    assert (
        "| a | 30.000 | 12.000 | 2.000 (1.900-2.100) | 15.0 | 90 | 40.0 (8000.0) | 2 (9) |" in lines
    )
    assert any(
        line.startswith("| 28.0 M parameters, 16 images 512x512, 150 classes, bfloat16 |")
        for line in lines
    )
    assert "| validation batch | 100.0 | 50.0 | 2.00 | 320 (160) | 3000 (9000) | 0 (34) |" in lines
    assert "**the kernels have changed since**" in report.render(record, "d" * 40)


def test_markdown_of_a_run_that_failed_at_once():
    stages = {"build": {"status": "failed", "seconds": 0.0, "text": "missing: torch"}}
    record = {
        "kind": "gpu",
        "csrc": "c" * 40,
        "date": "2027-01-02",
        "commit": "unknown",
        "stages": stages,
    }
    text = report.render(record, "c" * 40)
    assert text.startswith("unknown device (sm_?, driver ?)")
    assert "- build: failed (0 s): missing: torch" in text


def test_the_readme_says_what_there_is(record, tmp_path):
    readme = "<!-- results:begin gpu -->\nold\n<!-- results:end -->\n"
    assert "No GPU record exists yet" in update(readme, tmp_path)
    source = tmp_path / "csrc" / "a.cu"
    path = tmp_path / "bench" / "results" / "gpu_202701" / "proof.json"
    for file in (source, path):
        file.parent.mkdir(parents=True)
    source.write_text("kernel")
    record["csrc"] = tree_hash(tmp_path / "csrc")
    path.write_text(json.dumps(record))
    text = update(readme, tmp_path)
    assert "the present kernels" in text
    assert text.endswith("(`bench/results/gpu_202701`)\n<!-- results:end -->\n")
    source.write_text("another kernel")
    assert "**the kernels have changed since**" in update(readme, tmp_path)
    path.write_text(json.dumps(record | {"kind": "dry_run"}))
    with pytest.raises(ValueError, match="a dry run is no GPU record"):
        render_gpu(tmp_path)
