"""normalize_pad_stack. Floor: one byte read and one float written per output element."""

# SPDX-License-Identifier: Apache-2.0

from functools import partial

import torch

from segfast.bench.harness import Work
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

    def stack(function) -> torch.Tensor:
        return function(images, MEAN, STD, size=(512, 512), reverse_channels=True)

    def check() -> None:
        assert torch.equal(stack(normalize_pad_stack), stack(normalize_pad_stack_reference))

    elements = count * 3 * 512 * 512
    return Work(
        segfast=partial(stack, normalize_pad_stack),
        eager=partial(stack, normalize_pad_stack_reference),
        compiled=lambda: partial(stack, torch.compile(normalize_pad_stack_reference)),
        check=check,
        floor_bytes=5 * elements,
        elements=elements,
    )
