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


def setup(labels: str, device: str) -> Work:
    shape, num_classes = (2, 512, 512), 19
    pred = label_map(labels, shape, num_classes, device, ignored=False)
    target = label_map(labels, shape, num_classes, device)

    def count(function) -> torch.Tensor:
        return function(pred, target, num_classes)

    def check() -> None:
        assert torch.equal(count(confusion_matrix), count(confusion_matrix_reference))

    return Work(
        segfast=partial(count, confusion_matrix),
        eager=partial(count, confusion_matrix_reference),
        compiled=lambda: partial(count, torch.compile(confusion_matrix_reference)),
        check=check,
        floor_bytes=2 * pred.numel(),
        elements=pred.numel(),
    )
