"""Loads the compiled half of segfast: the only file that knows where it is and what to say when it is missing."""

# SPDX-License-Identifier: Apache-2.0

import warnings
from pathlib import Path

import torch

try:
    from segfast import _C  # type: ignore[attr-defined]  # compiled
except ImportError as error:
    raise ImportError(
        f"segfast's compiled operators cannot be loaded: {error} (hint: run `pip install .` in the "
        "checkout with the environment's own pip, and start python outside the checkout or install "
        "with -e; after changing torch, install segfast again)"
    ) from error


def _load_cuda() -> str:
    """Load the CUDA operators if they were built and torch has CUDA; return what happened in words."""
    facts = _C.build_facts()
    if not facts["cuda"]:
        return f"not built: {facts['cuda_reason']}"
    if torch.version.cuda is None:
        return f"not loaded: torch {torch.__version__} has no CUDA"
    library = Path(_C.__file__).with_name("libsegfast_ops_cuda.so")
    try:
        torch.ops.load_library(library)
    except OSError as error:
        reason = f"not loaded: {error.__cause__ or error}"
        warnings.warn(f"segfast: the CUDA operators are {reason}", RuntimeWarning, stacklevel=2)
        return reason
    return "loaded"


CUDA_STATUS = _load_cuda()
obey_sigterm_of = _C.obey_sigterm_of  # see csrc/worker_signals.cpp


def build_info() -> dict:
    """What was built, and what this machine uses of it.

    Returns:
        dict: `version`; `torch` (built against) and `torch_running`; `cuda` (toolkit version or None), `cuda_archs`
        (list of str) and `cuda_status` (`"loaded"` or the reason why not); `cpu_capability` (the instruction set the
        dispatcher chose: `"avx512"`, `"avx2"` or `"baseline"`); `compiler`.
    """
    facts = _C.build_facts()
    return {
        "version": facts["version"],
        "torch": facts["torch"],
        "torch_running": torch.__version__,
        "cuda": facts["cuda"] or None,
        "cuda_archs": [arch for arch in facts["cuda_archs"].split(",") if arch],
        "cuda_status": CUDA_STATUS,
        "cpu_capability": facts["cpu_capability"],
        "compiler": facts["compiler"],
    }
