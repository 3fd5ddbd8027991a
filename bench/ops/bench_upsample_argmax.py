"""upsample_argmax. Floor: the small logits read, one int64 per pixel written."""

# SPDX-License-Identifier: Apache-2.0

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Work, run

from segfast.ops import upsample_argmax, upsample_argmax_reference

CASES = {
    "2x150x128x128 -> 512x512": {"shape": (2, 150, 128, 128), "size": (512, 512)},
    "2x150x128x128 -> 512x512 bf16": {
        "shape": (2, 150, 128, 128),
        "size": (512, 512),
        "dtype": torch.bfloat16,
    },
    "2x19x128x128 -> 512x512": {"shape": (2, 19, 128, 128), "size": (512, 512)},
}


def setup(shape: tuple, size: tuple, device: str, dtype: torch.dtype = torch.float32) -> Work:
    logits = torch.randn(shape, device=device).to(dtype)

    def ours() -> torch.Tensor:
        return upsample_argmax(logits, size)

    def eager() -> torch.Tensor:
        return upsample_argmax_reference(logits, size)

    def check() -> None:  # two classes within a rounding error may fall to either
        differing = (ours() != eager()).float().mean().item()
        assert differing <= (1e-4 if dtype == torch.float32 else 2e-2), differing

    pixels = shape[0] * size[0] * size[1]
    return Work(ours, eager, check, logits.numel() * logits.element_size() + 8 * pixels)


if __name__ == "__main__":
    run("upsample_argmax", CASES, setup)
