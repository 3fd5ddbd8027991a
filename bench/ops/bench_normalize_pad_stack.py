"""normalize_pad_stack. Floor: one byte read and one float written per output element."""

# SPDX-License-Identifier: Apache-2.0

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Work, run

from segfast.ops import normalize_pad_stack, normalize_pad_stack_reference

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
CASES = {
    "8 images of about 512x512, interleaved": {"count": 8, "interleaved": True},
    "8 images of about 512x512, planar": {"count": 8, "interleaved": False},
}


def setup(count: int, interleaved: bool, device: str) -> Work:
    images = [
        torch.randint(0, 256, (512 - i, 500 + i, 3), dtype=torch.uint8, device=device).permute(
            2, 0, 1
        )
        for i in range(count)
    ]
    if not interleaved:
        images = [image.contiguous() for image in images]
    options = {"size": (512, 512), "reverse_channels": True}

    def ours() -> torch.Tensor:
        return normalize_pad_stack(images, MEAN, STD, **options)

    def eager() -> torch.Tensor:
        return normalize_pad_stack_reference(images, MEAN, STD, **options)

    def check() -> None:
        assert torch.equal(ours(), eager())

    return Work(ours, eager, check, 5 * count * 3 * 512 * 512)


if __name__ == "__main__":
    run("normalize_pad_stack", CASES, setup)
