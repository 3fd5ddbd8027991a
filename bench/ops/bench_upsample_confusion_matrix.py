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


def setup(shape: tuple, size: int, device: str) -> Work:
    logits = torch.randn(shape, device=device)
    target = label_map("smooth", (shape[0], size, size), shape[1], device)

    def check() -> None:  # two classes within a rounding error may fall to either
        actual = upsample_confusion_matrix(logits, target)
        expected = upsample_confusion_matrix_reference(logits, target)
        assert actual.sum() == expected.sum()
        assert (actual - expected).abs().sum() <= 2e-4 * expected.sum()

    return Work(
        segfast=partial(upsample_confusion_matrix, logits, target),
        eager=partial(upsample_confusion_matrix_reference, logits, target),
        compiled=lambda: partial(
            torch.compile(upsample_confusion_matrix_reference), logits, target
        ),
        check=check,
        floor_bytes=logits.numel() * 4 + target.numel(),
        elements=target.numel() * shape[1],
    )
