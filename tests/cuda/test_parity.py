"""Every operator against float64 eager and, on CUDA, against the CPU kernel: fresh inputs, awkward sizes and layouts."""

# SPDX-License-Identifier: Apache-2.0

import itertools
from dataclasses import replace

import pytest
import torch
from calls import CALLS, SHAPES, Sizes, placed
from helpers import DEVICES, LAYOUTS

LOGITS = [torch.float32, torch.float16, torch.bfloat16]
LABELS = [torch.uint8, torch.int16, torch.int32, torch.int64]


def to_cpu(outputs):
    return tuple(t.cpu() for t in outputs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sizes", SHAPES, ids=str)
@pytest.mark.parametrize("call", CALLS, ids=repr)
def test_shapes(call, sizes, device):
    inputs = call.draw(sizes)
    here = placed(inputs, device)
    actual = call.run(here)
    call.compare(actual, call.truth(here), here)
    if device == "cuda":
        call.compare(to_cpu(actual), call.run(inputs), inputs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("logits", LOGITS, ids=str)
@pytest.mark.parametrize("call", CALLS, ids=repr)
def test_dtypes_and_layouts(call, logits, device):
    for labels, layout in itertools.product(LABELS, LAYOUTS):
        inputs = call.draw(Sizes(logits=logits, labels=labels, C=11))
        here = placed(inputs, device, layout)
        call.compare(call.run(here), call.truth(here), here)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("call", CALLS, ids=repr)
def test_empty(call, device):
    """No images, no rows: shapes as always, sums and gradients of nothing."""
    empties = [replace(Sizes(), N=0)] + [replace(Sizes(), size=s) for s in ((0, 31), (20, 0))]
    for sizes in empties:
        inputs = call.draw(sizes)
        if "size" in inputs and 0 in inputs["size"]:
            continue  # there is no resize to nothing
        if "images" in inputs or "maps" in inputs:
            inputs = {name: [x[..., :0, :] for x in value] for name, value in inputs.items()}
        outputs = call.run(placed(inputs, device))
        if device == "cuda":
            call.compare(to_cpu(outputs), call.run(inputs), inputs)
        for output in outputs:
            assert output.numel() == 0 or output.dim() == 0 or not output.any()
