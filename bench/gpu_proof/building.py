"""Builds the checkout for the present architecture into build/gpu_proof/site, which the other stages import from.

Nothing is downloaded and nothing outside build/ changes. Two routes: pip with the build backend, where pip,
scikit-build-core and pybind11 are there; else cmake by hand. `--wheels DIR` unpacks what is missing beforehand.
The site is marked with the hash of the sources it was made of, so that a stage never measures another version.
"""

# SPDX-License-Identifier: Apache-2.0

import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from ..source_tree import tree_hash
from .process import Finished, last_line, run

BUILD_TOOLS = ("scikit_build_core", "pybind11")
NEEDED = ("torch", "numpy", "PIL", "yaml", "tqdm", "safetensors", "pytest", "pytest_benchmark")
_FLAGS = "-DCMAKE_BUILD_TYPE=Release"


class Site:
    """The folder a build goes to, and the environment that imports from it."""

    def __init__(self, root: Path, device: str) -> None:
        """Name the folders; nothing is made."""
        self.root, self.device = root, device
        self.folder = root / "build" / "gpu_proof" / device
        self.path = self.folder / "site"
        self.carried = root / "build" / "gpu_proof" / "carried"
        self._mark = self.path / "segfast_sources.txt"

    def sources(self) -> str:
        """What is installed, as one hash."""
        trees = [
            tree_hash(self.root / name, ("results",))
            for name in ("csrc", "cmake", "segfast", "bench")
        ]
        return hashlib.sha256(" ".join(trees).encode()).hexdigest()

    def is_present(self) -> bool:
        """Whether the site was made of the present sources."""
        return self._mark.is_file() and self._mark.read_text(encoding="ascii") == self.sources()

    def mark(self) -> None:
        """Note what the site was made of."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._mark.write_text(self.sources(), encoding="ascii")

    def environment(self) -> dict[str, str]:
        """For every stage: import from the site if it is there, then what was carried, then the rest."""
        folders = [self.path] if self.is_present() else []
        folders += [self.carried] if self.carried.is_dir() else []
        paths = [str(folder) for folder in folders]
        programs = [str(folder / "bin") for folder in folders]
        environment = {
            "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "PATH": os.pathsep.join([*programs, os.environ.get("PATH", "")]),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        nvcc = find_nvcc()
        if nvcc is not None:
            environment["CUDACXX"] = nvcc
        return environment


def carry(site: Site, wheels: Path) -> Finished:
    """Unpack the wheels of a folder, as they are: no index is asked and nothing is resolved."""
    files = [str(path) for path in sorted(wheels.glob("*.whl"))]
    shutil.rmtree(site.carried, ignore_errors=True)
    options = ["--quiet", "--no-index", "--no-deps", "--target", str(site.carried)]
    return run([sys.executable, "-m", "pip", "install", *options, *files], site.root, 60)


def missing(site: Site) -> list[str]:
    """Modules that a proof needs and that are neither installed nor carried."""
    return [name for name in NEEDED if not _has(site, name)]


def build(site: Site, limit_s: float) -> tuple[Finished, dict[str, Any]]:
    """Build and install into the site; what was used is returned beside the log."""
    shutil.rmtree(site.path, ignore_errors=True)
    environment = site.environment()
    environment |= {"SEGFAST_CUDA": "1" if site.device == "cuda" else "0"}
    facts: dict[str, Any] = {"nvcc": nvcc_version(environment.get("CUDACXX"))}
    if site.device == "cuda":
        facts["arch"] = environment["TORCH_CUDA_ARCH_LIST"] = present_arch(environment)
    with_pip = all(_has(site, name) for name in ("pip", *BUILD_TOOLS))
    facts["route"] = "pip" if with_pip else "cmake"
    route = _pip_route if with_pip else _cmake_route
    finished = route(site, limit_s, environment)
    if finished.status == 0:
        site.mark()
    return finished, facts


def _pip_route(site: Site, limit_s: float, environment: dict[str, str]) -> Finished:
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(site.path)]
    settings = [f"-Cbuild-dir={site.folder / 'cmake'}"]
    command = [sys.executable, "-m", "pip", "install", "--verbose", *options, *settings, "."]
    return run(command, site.root, limit_s, environment)


def _cmake_route(site: Site, limit_s: float, environment: dict[str, str]) -> Finished:
    """What the backend does, by hand: configure, build, install, copy the Python files."""
    made = site.folder / "cmake"
    options = [_FLAGS, f"-DSKBUILD_PROJECT_VERSION={_version(site.root)}"]
    options += [f"-DPython_EXECUTABLE={sys.executable}", f"-DCMAKE_INSTALL_PREFIX={site.path}"]
    if pybind11 := importlib.util.find_spec("pybind11"):
        options.append(
            f"-Dpybind11_DIR={Path(pybind11.origin or '').parent / 'share/cmake/pybind11'}"
        )
    if shutil.which("ninja", path=environment["PATH"]):
        options += ["-G", "Ninja"]
    output, seconds = "", 0.0
    for command in (
        ["cmake", "-S", ".", "-B", str(made), *options],
        ["cmake", "--build", str(made), "--parallel"],
        ["cmake", "--install", str(made)],
    ):
        finished = run(command, site.root, limit_s - seconds, environment)
        output, seconds = output + finished.output, seconds + finished.seconds
        if finished.status != 0:
            return Finished(finished.status, output, seconds)
    for source, target in (("segfast", "segfast"), ("bench", "segfast/bench")):
        leave_out = shutil.ignore_patterns("__pycache__", "results", "test_*.py", "conftest.py")
        shutil.copytree(
            site.root / source, site.path / target, ignore=leave_out, dirs_exist_ok=True
        )
    return Finished(0, output, seconds)


def hidden_by(site: Site) -> str | None:
    """The file of another segfast that is imported instead of the site's, such as an editable install's; or None."""
    text = "import segfast; print('file', segfast.__file__)"
    finished = run([sys.executable, "-P", "-c", text], site.root, 120, site.environment())
    found = re.search(r"^file (.+)$", finished.output, re.MULTILINE)
    if found is None:
        return f"none can be imported: {last_line(finished.output)}"
    return None if Path(found[1]).is_relative_to(site.path) else found[1]


@functools.cache
def facts(site: Site) -> dict[str, Any]:
    """`records.facts` of the machine, asked once, in another process.

    Raises:
        RuntimeError: it cannot be asked, because segfast cannot be imported or there is no such device.
    """
    text = "import json, sys; from segfast.bench.records import facts; print('facts', json.dumps(facts(sys.argv[1])))"
    command = [sys.executable, "-P", "-c", text, site.device]
    finished = run(command, site.root, 120, site.environment())
    found = re.search(r"^facts (.+)$", finished.output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"no facts: {last_line(finished.output)}")
    return json.loads(found[1])


def present_arch(environment: dict[str, str]) -> str:
    """The first GPU's architecture as TORCH_CUDA_ARCH_LIST spells it, "9.0"; torch is asked in another process."""
    text = "import torch; print('arch', *torch.cuda.get_device_capability())"
    finished = run([sys.executable, "-P", "-c", text], Path.cwd(), 120, environment)
    found = re.search(r"^arch (\d+) (\d+)$", finished.output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"torch sees no CUDA device: {last_line(finished.output)}")
    return f"{found[1]}.{found[2]}"


def find_nvcc() -> str | None:
    """CUDACXX, or nvcc on the PATH, or under CUDA_HOME or /usr/local/cuda."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [os.environ.get("PATH", ""), *(f"{home}/bin" for home in homes if home)]
    return os.environ.get("CUDACXX") or shutil.which("nvcc", path=os.pathsep.join(folders))


def nvcc_version(nvcc: str | None) -> str | None:
    """Its release, such as "13.0"."""
    if nvcc is None:
        return None
    found = re.search(r"release ([\d.]+)", run([nvcc, "--version"], Path.cwd(), 30).output)
    return found[1] if found else None


def _version(root: Path) -> str:
    found = re.search(
        r'^version = "(.+)"', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    return found[1] if found else "0"


def _has(site: Site, name: str) -> bool:
    return importlib.util.find_spec(name) is not None or any(site.carried.glob(f"{name}*"))
