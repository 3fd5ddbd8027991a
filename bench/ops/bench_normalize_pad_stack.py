"""normalize_pad_stack. Floor: every source byte read and every output element written once."""

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
CUDA_CASES = {
    f"{count} images of {'about ' if odd else ''}512x512, {layout}, {str(dtype)[6:]}": {
        "count": count,
        "interleaved": layout == "interleaved",
        "dtype": dtype,
        "odd": odd,
    }
    for count, odd in ((64, False), (16, False), (16, True))
    for layout in ("interleaved", "planar")
    for dtype in (torch.float32, torch.bfloat16)
}


def setup(
    count: int,
    interleaved: bool,
    device: str,
    dtype: torch.dtype = torch.float32,
    odd: bool = True,
) -> Work:
    sizes = [(512 - i, 500 + i) if odd else (512, 512) for i in range(count)]
    images = [
        torch.randint(
            0, 256, (*(min(side, 512) for side in size), 3), dtype=torch.uint8, device=device
        ).permute(2, 0, 1)
        for size in sizes
    ]
    if not interleaved:
        images = [image.contiguous() for image in images]
    options = {"size": (512, 512), "reverse_channels": True, "dtype": dtype}
    statistics = [
        torch.tensor(values, device=device) for values in (MEAN, STD)
    ]  # eager's, in place

    def stack(function, mean=MEAN, std=STD) -> torch.Tensor:
        return function(images, mean, std, **options)

    def check() -> None:
        assert torch.equal(stack(normalize_pad_stack), stack(normalize_pad_stack_reference))

    elements = count * 3 * 512 * 512
    return Work(
        segfast=partial(stack, normalize_pad_stack),
        eager=partial(stack, normalize_pad_stack_reference, *statistics),
        compiled=lambda: partial(stack, torch.compile(normalize_pad_stack_reference), *statistics),
        check=check,
        floor_bytes=sum(image.numel() for image in images) + elements * dtype.itemsize,
        elements=elements,
    )
