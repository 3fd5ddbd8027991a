"""upsample_confusion_matrix. Floor: the small logits and one label byte per pixel read."""

# SPDX-License-Identifier: Apache-2.0

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Work, run

from segfast.ops import upsample_confusion_matrix, upsample_confusion_matrix_reference

CASES = {
    "2x150x128x128 -> 512x512 smooth labels": {"shape": (2, 150, 128, 128), "size": 512},
    "2x19x64x64 -> 512x512 smooth labels": {"shape": (2, 19, 64, 64), "size": 512},
}
_CELL = 32  # pixels: the side of a square of one label


def setup(shape: tuple, size: int, device: str) -> Work:
    logits = torch.randn(shape, device=device)
    coarse = torch.randint(0, shape[1], (shape[0], size // _CELL, size // _CELL), device=device)
    target = coarse.to(torch.uint8).repeat_interleave(_CELL, 1).repeat_interleave(_CELL, 2)
    target[:, ::9] = 255

    def ours() -> torch.Tensor:
        return upsample_confusion_matrix(logits, target)

    def eager() -> torch.Tensor:
        return upsample_confusion_matrix_reference(logits, target)

    def check() -> None:  # two classes within a rounding error may fall to either
        actual, expected = ours(), eager()
        assert actual.sum() == expected.sum()
        assert (actual - expected).abs().sum() <= 2e-4 * expected.sum()

    return Work(ours, eager, check, logits.numel() * 4 + target.numel())


if __name__ == "__main__":
    run("upsample_confusion_matrix", CASES, setup)
