"""confusion_matrix. Floor: two labels read per pixel."""

# SPDX-License-Identifier: Apache-2.0

from functools import partial

import torch

from segfast.bench.harness import Work
from segfast.bench.labels import label_map
from segfast.ops import confusion_matrix, confusion_matrix_reference

CASES = {
    "2x512x512 smooth labels": {"labels": "smooth"},
    "2x512x512 noise": {"labels": "noise"},
}
CUDA_CASES = {
    f"8x1024x2048 {labels}, {num_classes} classes, {name}": {
        "labels": labels,
        "shape": (8, 1024, 2048),
        "num_classes": num_classes,
        "dtype": dtype,
    }
    for num_classes, name, dtype in (
        (19, "uint8", torch.uint8),
        (19, "int64", torch.int64),
        (150, "uint8", torch.uint8),
    )
    for labels in ("smooth", "noise")
}


def setup(
    labels: str,
    device: str,
    shape: tuple = (2, 512, 512),
    num_classes: int = 19,
    dtype: torch.dtype = torch.uint8,
) -> Work:
    pred = label_map(labels, shape, num_classes, device, ignored=False).to(dtype)
    target = label_map(labels, shape, num_classes, device).to(dtype)

    def count(function) -> torch.Tensor:
        return function(pred, target, num_classes)

    def check() -> None:
        assert torch.equal(count(confusion_matrix), count(confusion_matrix_reference))

    return Work(
        segfast=partial(count, confusion_matrix),
        eager=partial(count, confusion_matrix_reference),
        compiled=lambda: partial(count, torch.compile(confusion_matrix_reference)),
        check=check,
        floor_bytes=2 * pred.numel() * pred.element_size(),
        elements=pred.numel(),
    )
