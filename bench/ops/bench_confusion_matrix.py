"""confusion_matrix. Floor: two labels read per pixel."""

# SPDX-License-Identifier: Apache-2.0

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Work, run

from segfast.ops import confusion_matrix, confusion_matrix_reference

CASES = {
    "2x512x512 smooth labels": {"size": 512, "cell": 32},
    "2x512x512 noise": {"size": 512, "cell": 1},
}


def setup(size: int, cell: int, device: str) -> Work:
    def labels() -> torch.Tensor:
        coarse = torch.randint(
            0, 19, (2, size // cell, size // cell), dtype=torch.uint8, device=device
        )
        return coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2)

    pred, target = labels(), labels()
    target[:, ::9] = 255

    def ours() -> torch.Tensor:
        return confusion_matrix(pred, target, 19)

    def eager() -> torch.Tensor:
        return confusion_matrix_reference(pred, target, 19)

    def check() -> None:
        assert torch.equal(ours(), eager())

    return Work(ours, eager, check, 2 * pred.numel())


if __name__ == "__main__":
    run("confusion_matrix", CASES, setup)
