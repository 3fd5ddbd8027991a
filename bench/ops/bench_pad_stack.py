"""pad_stack. Floor: every label read and written once."""

# SPDX-License-Identifier: Apache-2.0

from functools import partial

import torch

from segfast.bench.harness import Work
from segfast.ops import pad_stack, pad_stack_reference

CASES = {"8 uint8 maps of about 512x512": {"count": 8}}
CUDA_CASES = {
    "64 uint8 maps of about 512x512": {"count": 64},
    "64 int64 maps of about 512x512": {"count": 64, "dtype": torch.int64},
}


def setup(count: int, device: str, dtype: torch.dtype = torch.uint8) -> Work:
    maps = [torch.randint(0, 19, (512 - i, 500 + i), device=device).to(dtype) for i in range(count)]

    def check() -> None:
        assert torch.equal(pad_stack(maps), pad_stack_reference(maps))

    elements = count * 512 * (500 + count - 1)
    num_labels = sum(labels.numel() for labels in maps)
    return Work(
        segfast=partial(pad_stack, maps),
        eager=partial(pad_stack_reference, maps),
        compiled=lambda: partial(torch.compile(pad_stack_reference), maps),
        check=check,
        floor_bytes=(num_labels + elements) * dtype.itemsize,
        elements=elements,
    )
