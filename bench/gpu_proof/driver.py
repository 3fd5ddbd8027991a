"""Proves the CUDA kernels on the machine it runs on: build, tests, sanitizers, benches, a whole training step.

    python bench/gpu_proof                                    # about 8 minutes, writes bench/results/gpu_<yyyymm>/
    python bench/gpu_proof --stages build,tests --out DIR     # later calls with the same DIR add to its record
    python bench/gpu_proof --device cpu --quick               # dry run of the plumbing; no GPU record

Needs torch >= 2.11 with CUDA, nvcc, pip or cmake with ninja, scikit-build-core, pybind11 and pytest; downloads nothing.
What is missing may be carried as wheels: --wheels DIR. No card's setting is touched. Each stage has a share of the
time; what one leaves goes to the next. A stage that fails or runs out of time is recorded so and the others go on.
proof.json has everything, proof.md the tables, log.txt the stages' whole output.
"""

# SPDX-License-Identifier: Apache-2.0

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..source_tree import tree_hash
from . import bars, building, report, testing
from .building import Site
from .process import run, tail

ROOT = Path(__file__).resolve().parents[2]
SHARES = {"build": 20, "tests": 27, "sanitize": 16, "bench": 24, "step": 12, "report": 1}
WORKERS = {"bench": "segfast.bench.gpu_proof.operators", "step": "segfast.bench.e2e.train_step"}


def main(arguments: Sequence[str]) -> int:
    """Run the stages; 0 when none failed, 1 otherwise, 2 for wrong arguments."""
    options = _parse(arguments)
    site = Site(ROOT, options.device)
    out = options.out or _default_out(options.device)
    out.mkdir(parents=True, exist_ok=True)
    record = _open_record(out, options)
    (out / "log.txt").write_text("", encoding="utf-8")
    if options.wheels:
        carried = building.carry(site, options.wheels)
        print(f"wheels: exit status {carried.status} {carried.output.strip()}", flush=True)
    shares = {name: SHARES[name] for name in SHARES if name in options.stages}
    begin, planned_s = time.monotonic(), 0.0
    for name, share in shares.items():
        planned_s += 60 * options.minutes * share / sum(shares.values())
        limit_s = planned_s - (time.monotonic() - begin)
        _run_stage(name, site, record, limit_s, options, out)
    for line in _summary(record, out):
        print(line)
    failed = [name for name in shares if record["stages"][name]["status"] == "failed"]
    return 1 if failed else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu_proof",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, with --device cpu")
    parser.add_argument("--stages", default=",".join(SHARES), help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="default: bench/results/gpu_<yyyymm>")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all stages chosen")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to use beside what is there")
    parser.add_argument(
        "--commit", default=os.environ.get("SEGFAST_COMMIT"), help="where there is no git"
    )
    options = parser.parse_args(arguments)
    options.stages = options.stages.split(",")
    for name in options.stages:
        if name not in SHARES:
            parser.error(f"--stages: no stage {name!r}, there are {', '.join(SHARES)}")
    if options.quick and options.device != "cpu":
        parser.error("--quick is for --device cpu: a GPU record has full sizes")
    return options


def _default_out(device: str) -> Path:
    """A CPU's dry run never lands where records lie."""
    if device == "cpu":
        return ROOT / "build" / "gpu_proof" / bars.DRY_RUN
    return ROOT / "bench" / "results" / f"gpu_{datetime.datetime.now(datetime.UTC):%Y%m}"


def _open_record(out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The folder's record if it is of the same sources and kind, to be added to; else a new one."""
    kind = bars.GPU if options.device == "cuda" else bars.DRY_RUN
    identity = {"kind": kind, "quick": options.quick, "csrc": tree_hash(ROOT / "csrc")}
    path = out / "proof.json"
    if path.is_file():
        old = json.loads(path.read_text(encoding="utf-8"))
        if all(old.get(key) == value for key, value in identity.items()):
            return old
        print(f"{path} is of other sources or another kind: a new record replaces it")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    commit = options.commit or _commit()
    made = {"date": date, "commit": commit, "python": platform.python_version()}
    return {**identity, **made, "stages": {}}


def _commit() -> str:
    command = [
        "git",
        "-C",
        str(ROOT),
        "describe",
        "--always",
        "--dirty",
        "--exclude=*",
        "--abbrev=7",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _run_stage(
    name: str,
    site: Site,
    record: dict[str, Any],
    limit_s: float,
    options: argparse.Namespace,
    out: Path,
) -> None:
    """One stage: its result into the record, its output into the log, a line on the screen."""
    begin = time.monotonic()
    try:
        result = _stage(name, site, record, limit_s, options)
    except Exception as error:  # the others go on
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        result = {"status": "failed", "text": text, "log": ""}
    log = result.pop("log")
    if result["status"] == "failed" and log:
        result["log_tail"] = tail(log)
    result["seconds"] = round(time.monotonic() - begin, 1)
    record["stages"][name] = {**result, "commit": options.commit or _commit()}
    with (out / "log.txt").open("a", encoding="utf-8") as file:
        file.write(f"===== {name}\n{log}\n")
    (out / "proof.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if name == "report":
        text = report.render(record, record["csrc"])
        (out / "proof.md").write_text(text, encoding="utf-8")
    print(f"{name}: {report.stage_line(record['stages'][name])}", flush=True)


def _stage(
    name: str, site: Site, record: dict[str, Any], limit_s: float, options: argparse.Namespace
) -> dict[str, Any]:
    """Run one stage; its result has `status`, `text`, `log` and whatever else is worth keeping."""
    if name == "build":
        return _build(site, limit_s)
    if name == "report":
        return _report(record)
    if site.device == "cuda" and not site.is_present():
        raise RuntimeError("these sources are not built: run the stage build first")
    _note_machine(site, record)
    if name == "tests":
        return testing.run_tests(site, limit_s, options.quick)
    if name == "sanitize":
        return testing.run_sanitizers(site, limit_s)
    return _measure(name, site, record, limit_s, options.quick)


def _build(site: Site, limit_s: float) -> dict[str, Any]:
    if lacking := building.missing(site):
        text = f"missing: {', '.join(lacking)} (install them, or carry wheels with --wheels DIR)"
        return {"status": "failed", "text": text, "log": ""}
    finished, facts = building.build(site, limit_s)
    result = {"status": "passed", "text": f"by {facts['route']}", "log": finished.output, **facts}
    if finished.status != 0:
        return {**result, "status": "failed", "text": f"{facts['route']}: status {finished.status}"}
    if hidden := building.hidden_by(site):
        return {**result, "status": "failed", "text": f"another segfast comes first: {hidden}"}
    return result


def _note_machine(site: Site, record: dict[str, Any]) -> None:
    """Note where the stages run; a record is of one machine."""
    facts = building.facts(site)
    known = record.get("facts", facts)
    if known["device"] != facts["device"]:
        raise RuntimeError(
            f"the record is of {known['device']}, this is {facts['device']}: set --out"
        )
    record["facts"] = facts


def _report(record: dict[str, Any]) -> dict[str, Any]:
    record["bars"] = bars.evaluate(record)
    met = [bar["met"] for bar in record["bars"]]
    text = f"{met.count(True)} of {len(met)} bars met, {met.count(None)} not shown"
    return {"status": "passed", "text": text, "log": ""}


def _measure(
    name: str, site: Site, record: dict[str, Any], limit_s: float, quick: bool
) -> dict[str, Any]:
    """A worker in a process of its own; what it wrote before it failed is kept."""
    site.folder.mkdir(parents=True, exist_ok=True)
    path = site.folder / f"{name}.json"
    path.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-P",
        "-m",
        WORKERS[name],
        str(path),
        site.device,
        f"{limit_s - 3:.0f}",
    ]
    command += ["--quick"] if quick else []
    finished = run(command, ROOT, limit_s, site.environment())
    written = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if name == "step":
        record["step"] = written
        text = _step_text(written)
    else:
        record |= written
        count = len(written.get("rows", []))
        text = f"{count} cases, {len(written.get('problems', {}))} with problems"
    status = "passed" if finished.status == 0 else "failed"
    return {"status": status, "text": text, "log": finished.output}


def _step_text(step: Mapping[str, Any]) -> str:
    parts = [
        f"{name} {step[name]['eager']['ms']:.1f} -> {step[name]['segfast']['ms']:.1f} ms"
        for name in ("train", "train_with_loading", "val")
        if name in step
    ]
    return ", ".join(parts) or "nothing was measured"


def _summary(record: Mapping[str, Any], out: Path) -> list[str]:
    """The last lines on the screen."""
    lines = ["", report.caption(record, record["csrc"])]
    lines += [f"{name:9s} {report.stage_line(stage)}" for name, stage in record["stages"].items()]
    lines += [*report.bar_table(record.get("bars", [])), f"written to {out}"]
    return [line[:240] for line in lines]
