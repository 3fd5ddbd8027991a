"""Counts how often the host waits for the device: torch's sync debug mode warns of each wait."""

# SPDX-License-Identifier: Apache-2.0

import warnings
from typing import Any

import torch

_TEXT = "synchronizing CUDA operation"


class SyncCounter:
    """A context that counts the waits inside it; on the CPU there is nothing to count."""

    def __init__(self, device: str) -> None:
        """Not started."""
        self.on_cuda = device == "cuda"
        self.count = 0
        self._caught: Any = None
        self._warnings: list = []

    def __enter__(self) -> "SyncCounter":
        """Ask torch to warn, and every warning to be kept."""
        self._caught = warnings.catch_warnings(record=True)
        self._warnings = self._caught.__enter__()
        warnings.simplefilter("always")
        if self.on_cuda:
            torch.cuda.set_sync_debug_mode("warn")
        return self

    def __exit__(self, *_: object) -> None:
        """Count; other warnings inside are dropped."""
        if self.on_cuda:
            torch.cuda.set_sync_debug_mode("default")
        self.count = sum(_TEXT in str(warning.message) for warning in self._warnings)
        self._caught.__exit__(None, None, None)

    def per(self, iterations: int) -> float | None:
        """Waits an iteration; None on the CPU."""
        return self.count / iterations if self.on_cuda else None


def counting_works() -> bool:
    """Whether a wait that is known to happen is seen: the proof that 0 means 0."""
    value = torch.ones((), device="cuda")
    with SyncCounter("cuda") as counter:
        value.item()
    return counter.count == 1
