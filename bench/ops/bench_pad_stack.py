"""pad_stack. Floor: every label read and written once."""

# SPDX-License-Identifier: Apache-2.0

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Work, run

from segfast.ops import pad_stack, pad_stack_reference

CASES = {"8 uint8 maps of about 512x512": {"count": 8}}


def setup(count: int, device: str) -> Work:
    maps = [
        torch.randint(0, 19, (512 - i, 500 + i), dtype=torch.uint8, device=device)
        for i in range(count)
    ]

    def check() -> None:
        assert torch.equal(pad_stack(maps), pad_stack_reference(maps))

    return Work(
        lambda: pad_stack(maps), lambda: pad_stack_reference(maps), check, 2 * count * 512 * 512
    )


if __name__ == "__main__":
    run("pad_stack", CASES, setup)
