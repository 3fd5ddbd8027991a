"""upsample_confusion_matrix. Floor: the small logits and one label byte per pixel read."""

# SPDX-License-Identifier: Apache-2.0

from functools import partial

import torch

from segfast.bench.harness import Work
from segfast.bench.labels import label_map
from segfast.ops import upsample_confusion_matrix, upsample_confusion_matrix_reference

CASES = {
    "2x150x128x128 -> 512x512 smooth labels": {"shape": (2, 150, 128, 128), "size": 512},
    "2x19x64x64 -> 512x512 smooth labels": {"shape": (2, 19, 64, 64), "size": 512},
}
CUDA_CASES = {
    f"{shape[0]}x{shape[1]}x128x128 -> 512x512 smooth labels, {str(dtype)[6:]}": {
        "shape": shape,
        "size": 512,
        "dtype": dtype,
    }
    for shape in ((16, 150, 128, 128), (2, 150, 128, 128), (16, 19, 128, 128))
    for dtype in (torch.float32, torch.bfloat16)
}


def setup(shape: tuple, size: int, device: str, dtype: torch.dtype = torch.float32) -> Work:
    logits = torch.randn(shape, device=device).to(dtype)
    target = label_map("smooth", (shape[0], size, size), shape[1], device)

    def check() -> None:  # two classes within a rounding error may fall to either
        actual = upsample_confusion_matrix(logits, target)
        expected = upsample_confusion_matrix_reference(logits.float(), target)
        assert actual.sum() == expected.sum()
        assert (actual - expected).abs().sum() <= 2e-4 * expected.sum()

    return Work(
        segfast=partial(upsample_confusion_matrix, logits, target),
        eager=partial(upsample_confusion_matrix_reference, logits, target),
        compiled=lambda: partial(
            torch.compile(upsample_confusion_matrix_reference), logits, target
        ),
        check=check,
        floor_bytes=logits.numel() * dtype.itemsize + target.numel(),
        elements=target.numel() * shape[1],
    )
