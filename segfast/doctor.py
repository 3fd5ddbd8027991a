"""segfast doctor: what is installed, what the dispatcher chose, and remedies for the usual mismatches."""

# SPDX-License-Identifier: Apache-2.0

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess

import torch

from segfast._native import build_info

_PACKAGES = ("numpy", "pillow", "torchvision", "segmentation-models-pytorch", "timm", "safetensors")


def report() -> str:
    """Facts, then findings, each with its remedy."""
    info = build_info()
    lines = [
        f"segfast {info['version']}, built against torch {info['torch']} with {info['compiler']}",
        f"python {platform.python_version()} on {platform.platform()}",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU kernels: {info['cpu_capability']}",
        f"CUDA of torch: {torch.version.cuda or 'none'}; CUDA kernels: {info['cuda_status']}"
        + (f", nvcc {info['cuda']} for {' '.join(info['cuda_archs'])}" if info["cuda"] else ""),
        f"GPU: {_gpus()}",
        "packages: " + ", ".join(_package(name) for name in _PACKAGES),
    ]
    findings = [*_torchvision(), *_cuda(info)]
    return "\n".join([*lines, *(findings or ["no problems found"])])


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _package(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{name} -"


def _torchvision() -> list[str]:
    """A torchvision built for another torch breaks on import, and SMP and timm with it."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name == "torchvision":
            return []
        return [f"PROBLEM: torchvision cannot be imported: {error}"]
    except Exception as error:
        return [
            f"PROBLEM: torchvision does not fit torch {torch.__version__} ({str(error).splitlines()[0]}); "
            "remedy: install the pair together, pip install --force-reinstall torch torchvision"
        ]
    return []


def _cuda(info: dict) -> list[str]:
    """CUDA is there but our kernels are not, or nvcc and torch are of different majors."""
    if torch.version.cuda is None or info["cuda_status"] == "loaded":
        return []
    nvcc = shutil.which("nvcc") or shutil.which(
        "nvcc", path=os.path.join(os.environ.get("CUDA_HOME", ""), "bin")
    )
    if nvcc is None:
        return [
            "PROBLEM: no CUDA kernels and no nvcc; "
            f"remedy: install the CUDA {torch.version.cuda} toolkit, then segfast again"
        ]
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release (\d+)\.(\d+)", text)
    version = ".".join(found.groups()) if found else "unknown"
    if version.split(".")[0] != torch.version.cuda.split(".")[0]:
        return [
            f"PROBLEM: nvcc {version} cannot build for torch's CUDA {torch.version.cuda}; "
            f"remedy: put an nvcc {torch.version.cuda.split('.')[0]}.x first on PATH (or in CUDACXX), "
            "then install segfast again"
        ]
    return [
        f"PROBLEM: CUDA kernels {info['cuda_status']}; "
        "remedy: SEGFAST_CUDA=1 pip install --force-reinstall --no-deps <checkout>"
    ]
