"""The GPU proof without a GPU: a dry run from the command line, and what its parts make of good and bad outcomes."""

# SPDX-License-Identifier: Apache-2.0

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segfast.bench import harness
from segfast.bench.gpu_proof import building, driver, operators, small_set, testing
from segfast.bench.gpu_proof.building import Site
from segfast.bench.gpu_proof.process import Finished, last_line, run, tail
from segfast.bench.source_tree import tree_hash

ROOT = Path(__file__).resolve().parents[2]
GIT_HASH = "5ed5140d3b8d56e17718743012e2bae27288a7f0"  # of test_tree_hash_is_gits' files, by git write-tree


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_dry_run(tmp_path):
    """Every stage but the build; what it leaves is a record of nothing, and says so."""
    command = [sys.executable, str(ROOT / "bench" / "gpu_proof"), "--device", "cpu", "--quick"]
    command += [
        "--stages",
        "tests,sanitize,bench,step,report",
        "--out",
        str(tmp_path),
        "--commit",
        "abc1234",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "proof.json", "proof.md"]
    record = json.loads((tmp_path / "proof.json").read_text())
    assert (record["kind"], record["quick"], record["commit"]) == ("dry_run", True, "abc1234")
    assert record["csrc"] == tree_hash(ROOT / "csrc")
    statuses = {name: stage["status"] for name, stage in record["stages"].items()}
    assert statuses == dict.fromkeys(["tests", "bench", "step", "report"], "passed") | {
        "sanitize": "skipped"
    }
    assert record["stages"]["tests"]["parts"]["quick"]["passed"] > 0
    assert {row["op"] for row in record["rows"]} == {"confusion_matrix", "pad_stack"}
    assert record["facts"]["build"]["torch_running"] == torch.__version__
    for part in ("train", "val", "train_with_loading"):
        assert record["step"][part]["ratio"] > 0
        assert {"ms", "images_per_s"} <= record["step"][part]["eager"].keys()
    assert len(record["bars"]) == 12
    assert {bar["met"] for bar in record["bars"]} == {None}
    assert (tmp_path / "proof.md").read_text().startswith("**DRY RUN on the CPU")
    lines = done.stdout.splitlines()
    assert len(done.stdout) < 12_000
    assert lines[-1] == f"written to {tmp_path}"


@pytest.fixture
def outcomes(monkeypatch):
    """The driver with stages made up: name -> result or exception."""
    made_up = {}

    def stage(name, site, record, limit_s, options):
        if isinstance(made_up[name], Exception):
            raise made_up[name]
        return dict(made_up[name])

    monkeypatch.setattr(driver, "ROOT", ROOT)
    monkeypatch.setattr(driver, "_stage", stage)
    return made_up


def test_a_failure_does_not_lose_the_rest(outcomes, tmp_path, capsys):
    outcomes["tests"] = {"status": "failed", "text": "1 failed", "log": "long\nlog\n"}
    outcomes["sanitize"] = RuntimeError("broken\nbadly")
    outcomes["bench"] = {"status": "passed", "text": "fine", "log": "noise"}
    arguments = ["--stages", "bench,tests,sanitize", "--out", str(tmp_path)]
    assert driver.main(arguments) == 1
    record = json.loads((tmp_path / "proof.json").read_text())
    assert list(record["stages"]) == ["tests", "sanitize", "bench"]  # in their own order
    assert record["stages"]["tests"]["log_tail"] == ["long", "log"]
    assert record["stages"]["sanitize"]["text"] == "RuntimeError: broken badly"
    assert record["stages"]["bench"]["status"] == "passed"
    assert "log_tail" not in record["stages"]["bench"]
    assert "noise" in (tmp_path / "log.txt").read_text()
    assert "tests: failed" in capsys.readouterr().out

    outcomes["tests"] = outcomes["sanitize"] = outcomes["bench"]
    assert driver.main(["--stages", "tests", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "proof.json").read_text())
    assert record["stages"]["tests"]["status"] == "passed"  # anew
    assert record["stages"]["sanitize"]["status"] == "failed"  # kept


def test_a_record_of_other_sources_is_not_added_to(outcomes, tmp_path, monkeypatch):
    outcomes["tests"] = outcomes["bench"] = {"status": "passed", "text": "", "log": ""}
    driver.main(["--stages", "tests", "--out", str(tmp_path)])
    monkeypatch.setattr(driver, "tree_hash", lambda folder: "0" * 40)
    driver.main(["--stages", "bench", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "proof.json").read_text())
    assert record["csrc"] == "0" * 40
    assert list(record["stages"]) == ["bench"]


def test_a_gpu_stage_wants_the_present_build(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "ROOT", ROOT)
    monkeypatch.setattr(Site, "is_present", lambda self: False)
    assert driver.main(["--stages", "bench", "--out", str(tmp_path)]) == 1
    record = json.loads((tmp_path / "proof.json").read_text())
    assert record["kind"] == "gpu"
    assert "run the stage build first" in record["stages"]["bench"]["text"]


def test_a_record_is_of_one_machine(monkeypatch):
    monkeypatch.setattr(building, "facts", lambda site: {"device": "this card"})
    record = {"facts": {"device": "another card"}}
    with pytest.raises(RuntimeError, match="another card, this is this card: set --out"):
        driver._note_machine(Site(ROOT, "cuda"), record)
    del record["facts"]
    driver._note_machine(Site(ROOT, "cuda"), record)
    assert record["facts"]["device"] == "this card"


@pytest.mark.parametrize("arguments", [["--stages", "tests,benhc"], ["--quick"]])
def test_wrong_arguments(arguments):
    with pytest.raises(SystemExit) as status:
        driver.main(arguments)
    assert status.value.code == 2


def test_a_command_ends_at_its_limit_with_its_children(tmp_path):
    script = "import subprocess, sys; print('begun', flush=True); subprocess.run(['sleep', '60'])"
    finished = run([sys.executable, "-c", script], tmp_path, 3.0)
    assert finished.status is None
    assert finished.output.startswith("begun\n")
    assert finished.seconds < 30
    assert run(["true"], tmp_path, 0.0).status is None
    assert run(["no-such-program"], tmp_path, 9.0).status == 127
    assert run(["sh", "-c", "echo $X; exit 3"], tmp_path, 9.0, {"X": "y"})[:2] == (3, "y\n")
    assert tail("\n".join(map(str, range(100))))[-1] == "99"
    assert len(tail("x\n" * 100)) <= 40
    assert last_line("Traceback\n  ...\nRuntimeError: no driver\n\n") == "RuntimeError: no driver"


def test_tree_hash_is_gits(tmp_path):
    """Names that sort differently as folders, an executable, an empty folder, and what git would not see."""
    for name in ("a/x.h", "a.h", "a-b.h", "b/c/y.cu", "run.sh"):
        write(tmp_path / name, f"text of {name}\n")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "empty" / "nested").mkdir(parents=True)
    assert tree_hash(tmp_path) == GIT_HASH
    write(tmp_path / "__pycache__" / "x.pyc")
    write(tmp_path / ".hidden")
    write(tmp_path / "results" / "x.json")
    assert tree_hash(tmp_path, ("results",)) == GIT_HASH
    assert tree_hash(tmp_path) != GIT_HASH


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="no repository")
def test_tree_hash_of_the_sources():
    git = ["git", "-C", str(ROOT)]
    changed = subprocess.run(
        [*git, "status", "--porcelain", "csrc"], capture_output=True, text=True, check=False
    )
    if changed.returncode or changed.stdout:
        pytest.skip("csrc differs from the commit")
    head = subprocess.run(
        [*git, "rev-parse", "HEAD:csrc"], capture_output=True, text=True, check=True
    )
    assert tree_hash(ROOT / "csrc") == head.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one file of each kind."""
    for name in ("csrc/a.cu", "cmake/a.cmake", "segfast/a.py", "bench/a.py"):
        write(tmp_path / name)
    write(tmp_path / "pyproject.toml", 'name = "x"\nversion = "1.2.3"\n')
    return tmp_path


def test_a_site_knows_its_sources(checkout):
    site = Site(checkout, "cuda")
    assert not site.is_present()
    site.path.mkdir(parents=True)
    site.mark()
    assert site.is_present()
    assert site.environment()["PYTHONPATH"].split(os.pathsep)[0] == str(site.path)
    write(checkout / "bench" / "results" / "x.json")
    assert site.is_present()
    write(checkout / "bench" / "a.py", "changed")
    assert not site.is_present()
    assert str(site.path) not in site.environment()["PYTHONPATH"]


def test_build_takes_the_route_there_is(checkout, monkeypatch):
    commands = []

    def record(command, folder, limit_s, environment=None):
        commands.append((command, environment))
        return Finished(0, "nvcc release 13.0, done", 1.0)

    monkeypatch.setattr(building, "run", record)
    monkeypatch.setattr(building, "present_arch", lambda environment: "9.0")
    monkeypatch.setattr(building, "find_nvcc", lambda: "/somewhere/nvcc")
    site = Site(checkout, "cuda")
    site.path.mkdir(parents=True)
    monkeypatch.setattr(building, "_has", lambda site, name: True)
    _, facts = building.build(site, 100)
    assert facts == {"nvcc": "13.0", "arch": "9.0", "route": "pip"}
    command, environment = commands[-1]
    assert command[1:4] == ["-m", "pip", "install"]
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(command)
    wanted = {"SEGFAST_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0", "CUDACXX": "/somewhere/nvcc"}
    assert wanted.items() <= environment.items()
    assert building.missing(site) == []

    monkeypatch.setattr(building, "_has", lambda site, name: name == "pip")
    assert "pytest" in building.missing(site)
    site = Site(checkout, "cpu")
    finished, facts = building.build(site, 100)
    assert (finished.seconds, facts["route"]) == (3.0, "cmake")
    assert [command[:2] for command, _ in commands[-3:]] == [
        ["cmake", "-S"],
        ["cmake", "--build"],
        ["cmake", "--install"],
    ]
    assert "-DSKBUILD_PROJECT_VERSION=1.2.3" in commands[-3][0]
    assert commands[-1][1]["SEGFAST_CUDA"] == "0"
    assert (site.path / "segfast" / "bench" / "a.py").is_file()
    assert site.is_present()


def test_another_segfast_is_noticed(tmp_path):
    site = Site(tmp_path, "cpu")
    assert building.hidden_by(site).endswith("__init__.py")  # the one these tests import


def test_cases_that_need_torch_compile_come_first(tmp_path):
    cases = operators._Run(tmp_path / "x.json", "cuda", 1.0, quick=False).all_cases()
    assert len({case[:2] for case in cases}) == len(cases)
    assert {case.op for case in cases} == set(operators.ORDER) == set(harness.op_names())
    needed = [operators._needs_compiled(case) for case in cases]
    assert 0 < sum(needed) < len(needed)
    assert needed == sorted(needed, reverse=True)
    assert {case.op for case in cases[: sum(needed)]} == {"cross_entropy", "upsample_cross_entropy"}


def test_a_case_that_goes_wrong_is_noted(tmp_path, monkeypatch):
    def measure(case, device, rounds, compiled, copy_gbs):
        if case.op == "wrong":
            raise AssertionError("differs\nby 1")
        if compiled:
            raise RuntimeError("no compiler")
        return [
            {
                "op": case.op,
                "case": case.name,
                "eager_ms": 1.0,
                "segfast_ms": 1.0,
                "percent_of_copy": 9.0,
            }
        ]

    monkeypatch.setattr(operators.harness, "measure", measure)
    monkeypatch.setattr(operators.torch.cuda, "empty_cache", lambda: None)
    run = operators._Run(tmp_path / "x.json", "cuda", 1000.0, quick=False)
    for op in ("good", "wrong"):
        run.measure(harness.Case(op, "case", {}, None), 1.0)
    run.save()
    record = json.loads((tmp_path / "x.json").read_text())
    assert [row["op"] for row in record["rows"]] == ["good"]
    assert record["problems"] == {
        "good: case": ["with torch.compile: RuntimeError: no compiler"],
        "wrong: case": [
            "with torch.compile: AssertionError: differs by 1",
            "AssertionError: differs by 1",
        ],
    }


def test_junit(tmp_path):
    xml = """<testsuites><testsuite>
    <testcase classname="tests.a" name="good"/>
    <testcase classname="tests.a" name="bad[cuda]"><failure message="off by one&#10;more">...</failure></testcase>
    <testcase classname="tests.a" name="worse"><error message="no fixture"/></testcase>
    <testcase classname="tests.a" name="left out"><skipped message="no data"/></testcase>
    </testsuite></testsuites>"""
    part = testing.read_junit(write(tmp_path / "report.xml", xml))
    assert (part["passed"], part["failed"], part["skipped"]) == (1, 2, 1)
    assert part["failures"] == ["tests.a::bad[cuda]: off by one", "tests.a::worse: no fixture"]
    assert part["skips"] == {"no data": 1}
    assert testing.read_junit(tmp_path / "none.xml")["passed"] == 0


@pytest.mark.parametrize(("part", "status", "expected"), [
    ({}, 0, "passed"),
    ({"skipped": 1, "skips": {"needs two CUDA devices": 1}}, 0, "passed"),
    ({"skipped": 1, "skips": {"needs a CUDA device": 1}}, 0, "failed"),
    ({"passed": 0}, 0, "failed"),
    ({"failed": 1, "failures": ["x"]}, 1, "failed"),
    ({}, None, "failed"),
], ids=["all", "skipped", "no device", "none", "failed", "stopped"])  # fmt: skip
def test_tests_stage(monkeypatch, part, status, expected):
    part = {"passed": 5, "failed": 0, "skipped": 0, "failures": [], "skips": {}} | part
    seen = []

    def run_part(site, limit_s, options):
        seen.append((limit_s, options))
        return part, Finished(status, "out", 10.0)

    monkeypatch.setattr(testing, "_run_part", run_part)
    result = testing.run_tests(Site(ROOT, "cuda"), 100.0, quick=False)
    assert result["status"] == expected
    assert [limit for limit, _ in seen] == [100.0, 90.0]
    assert seen[0][1][:2] == ["-m", "cuda"]
    assert result["log"] == "outout"


MEMCHECK = "small set: done\n========= ERROR SUMMARY: 0 errors\n"
RACECHECK = (
    "small set: done\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
)


@pytest.mark.parametrize(("tool", "status", "output", "expected"), [
    ("memcheck", 0, MEMCHECK, "passed"),
    ("racecheck", 0, RACECHECK, "passed"),
    ("memcheck", 0, MEMCHECK.replace("small set: done", ""), "failed"),
    ("memcheck", 99, MEMCHECK.replace("0 errors", "3 errors"), "failed"),
    ("racecheck", 0, RACECHECK.replace("0 hazards", "2 hazards"), "failed"),
    ("memcheck", 1, "Traceback", "failed"),
    ("memcheck", None, MEMCHECK, "failed"),
    ("memcheck", 1, "========= Error: Device not supported\nERROR SUMMARY: 0 errors", "unavailable"),
])  # fmt: skip
def test_sanitizer_output(tool, status, output, expected):
    assert testing.read_sanitizer(tool, Finished(status, output, 1.0))["status"] == expected


def test_sanitize_stage(monkeypatch):
    outputs = {"memcheck": MEMCHECK, "racecheck": RACECHECK}
    seen = []

    def fake(command, folder, limit_s, environment):
        seen.append((limit_s, environment["PYTORCH_NO_CUDA_MEMORY_CACHING"]))
        return Finished(0, outputs[command[2]], 10.0)

    monkeypatch.setattr(testing, "run", fake)
    monkeypatch.setattr(testing, "find_sanitizer", lambda: "compute-sanitizer")
    site = Site(ROOT, "cuda")
    result = testing.run_sanitizers(site, 100.0)
    assert (result["status"], result["text"]) == (
        "passed",
        "memcheck: 0 errors; racecheck: 0 errors",
    )
    assert seen == [(50.0, "1"), (90.0, "1")]
    outputs["racecheck"] = "Device not supported"
    assert testing.run_sanitizers(site, 100.0)["status"] == "unavailable"
    outputs["memcheck"] = "crashed"
    assert testing.run_sanitizers(site, 100.0)["status"] == "failed"
    monkeypatch.setattr(testing, "find_sanitizer", lambda: None)
    assert testing.run_sanitizers(site, 100.0)["status"] == "unavailable"


def test_small_set_runs_every_operator_and_compares(monkeypatch, capsys):
    small_set.main("cpu")
    assert capsys.readouterr().out == "small set: done\n"
    names = " ".join(name for name, _ in small_set.calls())
    for op in (
        "normalize_pad_stack", "pad_stack", "cross_entropy", "upsample_cross_entropy", "upsample_argmax",
        "confusion_matrix", "upsample_confusion_matrix",
    ):  # fmt: skip
        assert op in names
    factors = iter([1, 2])
    monkeypatch.setattr(
        small_set, "calls", lambda: [("op", lambda device: (torch.ones(1) * next(factors),))]
    )
    with pytest.raises(AssertionError, match="op: "):
        small_set.main("cpu")
