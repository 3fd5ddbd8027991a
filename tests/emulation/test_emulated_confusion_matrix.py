"""The CUDA kernel of confusion_matrix, thread for thread on the CPU, against the CPU kernel."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from emulated import labels

from segfast.ops._checks import LABEL_DTYPES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("num_classes", [1, 19, 150])
@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_confusion_matrix(emulated, num_classes, dtype):
    pred = torch.randint(0, num_classes, (3, 50, 61)).to(dtype)
    target = labels((3, 50, 61), num_classes, dtype)
    ignore = 255 if dtype == torch.uint8 else -1
    expected, actual = torch.zeros(2, num_classes, num_classes, dtype=torch.int64)
    torch.ops.segfast.confusion_matrix_(expected, pred, target, ignore)
    emulated.confusion_matrix_(actual, pred, target, ignore)
    assert torch.equal(actual, expected)
