"""Two stages on the built kernels: the test-suite with no CUDA test skipped, and the sanitizers on a small set."""

# SPDX-License-Identifier: Apache-2.0

import importlib.util
import os
import re
import shutil
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from .building import Site, find_nvcc
from .process import Finished, run

MOST_FAILURES = 40  # named in the record
_QUICK_TESTS = "tests/structures/test_pixel_data.py"
# tests/emulation runs the kernels on the CPU: nothing that this machine could add to.
_PARTS = {
    "cuda": ["-m", "cuda", "tests", "--ignore=tests/emulation"],
    "others": ["-m", "not cuda and not slow", "tests", "--ignore=tests/emulation"],
}
_TOOLS = {
    "memcheck": re.compile(r"ERROR SUMMARY: (\d+) error"),
    "racecheck": re.compile(r"RACECHECK SUMMARY: (\d+) hazard"),
}
_NO_DEVICE = ("needs a CUDA device", "needs the CUDA operators")  # tests/conftest.py's words
_REFUSED = re.compile(r"device not supported|not supported on this", re.IGNORECASE)


def run_tests(site: Site, limit_s: float, quick: bool) -> dict[str, Any]:
    """The CUDA tests, then the others; each part's counts and failures.

    Returns:
        `status` "passed" or "failed" (also where no test ran, or one missed the device), `text`, `log`, `parts`.
    """
    parts = {"quick": [_QUICK_TESTS]} if quick else dict(_PARTS)
    if site.device != "cuda":
        parts.pop("cuda", None)
    result: dict[str, Any] = {"status": "passed", "text": "", "log": "", "parts": {}}
    seconds = 0.0
    for name, options in parts.items():
        part, finished = _run_part(site, limit_s - seconds, options)
        seconds += finished.seconds
        complete = part["passed"] and not any(s.startswith(_NO_DEVICE) for s in part["skips"])
        if finished.status != 0 or not complete:
            result["status"] = "failed"
        result["parts"][name] = part
        result["log"] += finished.output
    result["text"] = "; ".join(
        f"{name}: {part['passed']} passed, {part['failed']} failed, {part['skipped']} skipped"
        for name, part in result["parts"].items()
    )
    return result


def _run_part(site: Site, limit_s: float, options: list[str]) -> tuple[dict[str, Any], Finished]:
    environment = site.environment() | {"MPLBACKEND": "Agg"}
    if site.device == "cuda":
        environment["SEGFAST_REQUIRE_CUDA"] = "1"
    workers = min(8, (os.cpu_count() or 1) // 2)
    if importlib.util.find_spec("xdist") and workers > 1:
        options = [*options, "-n", str(workers)]
        environment["OMP_NUM_THREADS"] = "2"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [f"--junitxml={report}", "--tb=short", *options]
        finished = run(command, site.root, limit_s, environment)
        return read_junit(report), finished


def read_junit(report: Path) -> dict[str, Any]:
    """Counts, failures and reasons of skips from pytest's XML; zeros where it was not written."""
    part: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": [], "skips": {}}
    if not report.is_file():
        return part
    for test in ElementTree.parse(report).iter("testcase"):
        problem = next((child for child in test if child.tag in ("failure", "error")), None)
        if problem is not None:
            part["failed"] += 1
            name = f"{test.get('classname')}::{test.get('name')}"
            message = (problem.get("message") or "").splitlines()
            part["failures"].append(f"{name}: {message[0][:300] if message else ''}")
        elif (skip := test.find("skipped")) is not None:
            part["skipped"] += 1
            reason = skip.get("message") or ""
            part["skips"][reason] = part["skips"].get(reason, 0) + 1
        else:
            part["passed"] += 1
    part["failures"] = part["failures"][:MOST_FAILURES]
    return part


def run_sanitizers(site: Site, limit_s: float) -> dict[str, Any]:
    """Run memcheck and racecheck on segfast.bench.gpu_proof.small_set.

    Returns:
        `status` "passed", "failed", "skipped" (no CUDA) or "unavailable" (no tool, or it refuses), `text`, `log`,
        `tools`.
    """
    if site.device != "cuda":
        return {"status": "skipped", "text": "no CUDA", "log": "", "tools": {}}
    program = find_sanitizer()
    if program is None:
        text = "compute-sanitizer is not on this machine"
        return {"status": "unavailable", "text": text, "log": "", "tools": {}}
    # Without torch's cache each tensor is an allocation of its own, and a byte beyond it is an error.
    environment = site.environment() | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    worker = [sys.executable, "-P", "-m", "segfast.bench.gpu_proof.small_set"]
    tools: dict[str, Any] = {}
    log, seconds = "", 0.0
    for number, tool in enumerate(_TOOLS):
        command = [program, "--tool", tool, "--error-exitcode", "99", *worker]
        share_s = (limit_s - seconds) / (len(_TOOLS) - number)
        finished = run(command, site.root, share_s, environment)
        seconds += finished.seconds
        log += finished.output
        tools[tool] = read_sanitizer(tool, finished)
    seen = [tool["status"] for tool in tools.values()]
    status = next(s for s in ("failed", "unavailable", "passed") if s in seen)
    text = "; ".join(f"{name}: {tool['text']}" for name, tool in tools.items())
    return {"status": status, "text": text, "log": log, "tools": tools}


def read_sanitizer(tool: str, finished: Finished) -> dict[str, str]:
    """What a sanitizer's output says: no error, and the program under it came to its end."""
    if finished.status is None:
        return {"status": "failed", "text": "stopped at its limit"}
    if _REFUSED.search(finished.output):
        return {"status": "unavailable", "text": "refused, the device is not supported"}
    found = _TOOLS[tool].search(finished.output)
    count = "no summary" if found is None else f"{found[1]} errors"
    if count == "0 errors" and finished.status == 0 and "small set: done" in finished.output:
        return {"status": "passed", "text": count}
    return {"status": "failed", "text": f"{count}, exit status {finished.status}"}


def find_sanitizer() -> str | None:
    """compute-sanitizer on the PATH, under CUDA_HOME or /usr/local/cuda, or beside nvcc."""
    homes = ["/usr/local/cuda", *filter(None, [os.environ.get("CUDA_HOME")])]
    if nvcc := find_nvcc():
        homes.append(str(Path(nvcc).resolve().parents[1]))
    folders = [os.environ.get("PATH", "")]
    folders += [f"{home}/{part}" for home in homes for part in ("bin", "compute-sanitizer")]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(folders))
