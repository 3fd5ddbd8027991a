"""Find the torch that segfast will run with, without importing it.

Run by CMake (`python segfast_torch.py` prints `directory;version;cuda`) and imported by the build backend. Under
pip's build isolation `import torch` fails although torch is in the target environment, but `sysconfig` still names
that environment's site-packages, so the folder is looked up there. `SEGFAST_TORCH_DIR` overrides the search.
"""

# SPDX-License-Identifier: Apache-2.0

import importlib.util
import os
import re
import site
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple


class Torch(NamedTuple):
    """An installed torch: its package folder, version, and CUDA version ("" for a CPU build)."""

    directory: Path
    version: str
    cuda: str


def _candidates() -> list[Path]:
    """Folders that may hold the torch package, best first."""
    if override := os.environ.get("SEGFAST_TORCH_DIR"):
        return [Path(override)]
    folders = []
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin:
        folders.append(Path(spec.origin).parent)
    roots = [sysconfig.get_path("platlib"), sysconfig.get_path("purelib")]
    if sys.prefix == sys.base_prefix:
        roots.append(site.getusersitepackages())
    return folders + [Path(root) / "torch" for root in roots]


def find_torch() -> Torch | None:
    """The first candidate that is a complete torch package, or None."""
    for folder in _candidates():
        version_file = folder / "version.py"
        if not version_file.is_file() or not (folder / "include").is_dir():
            continue
        text = version_file.read_text(encoding="utf-8")
        version = re.search(r"__version__ = '([^']+)'", text)
        cuda = re.search(r"^cuda[^=]*= '([^']+)'", text, re.MULTILINE)
        if version:
            return Torch(folder, version.group(1), cuda.group(1) if cuda else "")
    return None


if __name__ == "__main__":
    torch = find_torch()
    if torch is None:
        sys.exit("segfast: no torch found (install torch >= 2.11 first, or set SEGFAST_TORCH_DIR)")
    sys.stdout.write(f"{torch.directory.as_posix()};{torch.version};{torch.cuda}")
