"""upsample_argmax. Floor: the small logits read, one int64 per pixel written."""

# SPDX-License-Identifier: Apache-2.0

from functools import partial

import torch

from segfast.bench.harness import Work
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
CUDA_CASES = {
    f"{shape[0]}x{shape[1]}x128x128 -> 512x512 {str(dtype)[6:]}": {
        "shape": shape,
        "size": (512, 512),
        "dtype": dtype,
    }
    for shape in ((16, 150, 128, 128), (2, 150, 128, 128), (16, 19, 128, 128))
    for dtype in (torch.float32, torch.bfloat16)
} | {"8x19x97x101 -> 331x350 float32": {"shape": (8, 19, 97, 101), "size": (331, 350)}}


def setup(shape: tuple, size: tuple, device: str, dtype: torch.dtype = torch.float32) -> Work:
    logits = torch.randn(shape, device=device).to(dtype)

    def check() -> None:  # two classes within a rounding error may fall to either
        expected = upsample_argmax_reference(logits.float(), size)
        differing = (upsample_argmax(logits, size) != expected).float().mean().item()
        assert differing <= 1e-4, f"{differing:.1e} of the pixels differ"

    pixels = shape[0] * size[0] * size[1]
    return Work(
        segfast=partial(upsample_argmax, logits, size),
        eager=partial(upsample_argmax_reference, logits, size),
        compiled=lambda: partial(torch.compile(upsample_argmax_reference), logits, size),
        check=check,
        floor_bytes=logits.numel() * logits.element_size() + 8 * pixels,
        elements=pixels * shape[1],
    )
