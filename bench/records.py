"""What a measurement leaves behind: JSON with the machine, versions and commit, and how to read it again."""

# SPDX-License-Identifier: Apache-2.0

import datetime
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from segfast._native import build_info

RESULTS = Path("bench") / "results"  # under the checkout


def facts(device: str) -> dict[str, Any]:
    """Where and with what a measurement was made."""
    return {
        "device": _device_name(device),
        **(_cuda_facts() if device == "cuda" else {}),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "build": build_info(),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def write(path: str | Path, record: dict[str, Any]) -> None:
    """Write one run; the folder is created."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> list[dict[str, Any]]:
    """All runs of a folder, by name."""
    records = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))
    ]
    for record in records:
        record.setdefault("rows", [])
    return records


def newest(root: Path, kind: str) -> Path:
    """The latest folder `bench/results/<kind>_<yyyymm>` of a checkout.

    Raises:
        FileNotFoundError: there is none.
    """
    folders = sorted((root / RESULTS).glob(f"{kind}_*"))
    if not folders:
        raise FileNotFoundError(f"no {RESULTS}/{kind}_* in {root}")
    return folders[-1]


def _cuda_facts() -> dict[str, Any]:
    """The card, its driver and torch's CUDA."""
    properties = torch.cuda.get_device_properties()
    return {
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
    }


def _driver() -> str:
    """The driver's version: the kernel module's word, or else nvidia-smi's."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            text = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            text = ""
    found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", text)
    return found[0] if found else "unknown"


def _device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        cpuinfo = ""
    model = re.search(r"model name\s*: (.+)", cpuinfo)
    return model[1] if model else platform.processor() or platform.machine()


def _commit() -> str:
    """The checkout's commit, `-dirty` with local changes; "unknown" where this file is no part of one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    tracked = [*git, "ls-files", "--error-unmatch", Path(__file__).name]
    describe = [*git, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=7"]
    try:
        subprocess.run(tracked, capture_output=True, check=True)
        done = subprocess.run(describe, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
