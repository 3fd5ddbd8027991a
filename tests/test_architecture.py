"""The house rules that a machine can check: who imports whom, one stem in every place, no macros, checked launches."""

# SPDX-License-Identifier: Apache-2.0

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STEMS = [
    "normalize_pad_stack",
    "pad_stack",
    "cross_entropy",
    "upsample_cross_entropy",
    "confusion_matrix",
    "upsample_argmax",
    "upsample_confusion_matrix",
]
# What each layer may import of segfast; docs/architecture.md holds the same table.
LAYERS = {
    "errors": set(),
    "_native": set(),
    "paths": {"errors"},
    "structures": {"errors"},
    "ops": {"_native", "errors"},
    "construction": {"errors"},
    "registry": {"construction", "errors"},
    "weight_files": {"errors"},
    "config": {"errors", "registry", "demo_config"},
    "demo_config": set(),
    "distributed": {"errors"},
    "evaluation": {"distributed", "ops", "structures", "registry", "errors", "paths"},
    "datasets": {"_native", "distributed", "structures", "registry", "errors"},
    "models": {"distributed", "ops", "structures", "registry", "errors", "weight_files"},
    "visualization": {"structures", "registry", "errors", "paths"},
    "integrations": {"ops", "models", "evaluation", "errors"},
    "runner": {
        "ops", "models", "datasets", "evaluation", "visualization", "structures", "registry", "config", "errors",
        "_native", "paths", "distributed", "weight_files",
    },
}  # fmt: skip


def sources(*patterns):
    return sorted(
        path for pattern in patterns for path in ROOT.glob(pattern) if "build" not in path.parts
    )


def imported_layers(path):
    """The top-level parts of segfast that a file imports."""
    layers = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "segfast":
                names = [f"segfast.{alias.name}" for alias in node.names]
        layers |= {name.split(".")[1] for name in names if name.startswith("segfast.")}
    return layers


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_down(layer):
    files = sources(f"segfast/{layer}.py", f"segfast/{layer}/**/*.py")
    assert files, f"no files for layer {layer}"
    for path in files:
        extra = imported_layers(path) - LAYERS[layer] - {layer}
        if layer == "_native":
            extra -= {"_C"}
        assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)}, which {layer} may not"


@pytest.mark.parametrize("stem", STEMS)
def test_one_stem_in_every_place(stem):
    for place in (
        f"csrc/cpu/{stem}.cpp",
        f"csrc/cuda/{stem}.cu",
        f"segfast/ops/{stem}.py",
        f"tests/ops/test_{stem}.py",
        f"bench/ops/bench_{stem}.py",
    ):
        assert (ROOT / place).is_file(), place
    assert re.search(rf'"{stem}_?\(', (ROOT / "csrc/library.cpp").read_text(encoding="utf-8"))
    assert f"def {stem}_reference" in (ROOT / f"segfast/ops/{stem}.py").read_text(encoding="utf-8")


def test_every_launch_is_checked():
    for path in sources("csrc/cuda/*.cu"):
        text = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
        launches, checks = text.count("<<<"), text.count("STD_CUDA_KERNEL_LAUNCH_CHECK")
        branches = text.count(
            "} else {\n    confusion_matrix_kernel<false>"
        )  # two launches, one check behind both
        assert launches - branches == checks, f"{path.name}: {launches} launches, {checks} checks"


def test_backends_do_not_include_each_other():
    for path in sources("csrc/**/*.h", "csrc/**/*.cpp", "csrc/**/*.cu", "csrc/**/*.cuh"):
        includes = re.findall(r'#include "(\w+)/', path.read_text(encoding="utf-8"))
        layer = path.relative_to(ROOT / "csrc").parts[0]
        allowed = {"base": {"base"}, "ops": {"base", "ops"}}.get(layer, {"base", "ops", layer})
        assert set(includes) <= allowed, f"{path.name} includes {set(includes) - allowed}"


def test_function_like_macros_name_tables_only():
    for path in sources("csrc/**/*.h", "csrc/**/*.cpp", "csrc/**/*.cu", "csrc/**/*.cuh"):
        macros = re.findall(r"#define (\w+)\(", path.read_text(encoding="utf-8"))
        allowed = (
            {"SEGFAST_STRING_", "SEGFAST_STRING", "SEGFAST_JOIN_", "SEGFAST_JOIN"}
            if path.name == "table.cpp"
            else set()
        )
        assert set(macros) <= allowed, f"{path.name}: {macros}"


def test_every_file_has_a_licence_line_and_no_banned_name():
    banned = {"utils", "misc", "common", "legacy", "v2"}
    for path in sources(
        "segfast/**/*.py", "csrc/**/*.*", "tests/**/*.py", "bench/**/*.py", "cmake/*.py"
    ):
        assert path.stem not in banned, path
        assert "SPDX-License-Identifier: Apache-2.0" in path.read_text(encoding="utf-8"), path


def test_files_stay_small():
    for path in sources("segfast/**/*.py", "tests/**/*.py", "bench/**/*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
    for path in sources("csrc/**/*.*"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, path
