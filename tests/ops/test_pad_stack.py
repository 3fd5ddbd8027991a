"""pad_stack: dtype kept, right and bottom padding, every layout."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from helpers import DEVICES

from segfast.ops import pad_stack, pad_stack_reference
from segfast.ops.pad_stack import MAP_DTYPES


@pytest.mark.parametrize("device", DEVICES)
def test_golden(device):
    maps = [
        torch.tensor([[1, 2]], dtype=torch.uint8, device=device),
        torch.tensor([[3], [4]], dtype=torch.uint8, device=device),
    ]
    assert pad_stack(maps).tolist() == [[[1, 2], [255, 255]], [[3, 255], [4, 255]]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", MAP_DTYPES, ids=str)
@pytest.mark.parametrize("leading", [(), (1,)])
@pytest.mark.parametrize("options", [{}, {"size": (20, 33)}, {"size_divisor": 16}], ids=str)
def test_matches_reference(device, dtype, leading, options):
    maps = [
        torch.randint(0, 100, (*leading, h, w)).to(dtype).to(device) for h, w in [(9, 33), (17, 5)]
    ]
    maps.append(maps[0].transpose(-1, -2)[..., :20, :3])  # strided
    pad_value = -1 if dtype in (torch.int8, torch.int16, torch.int32, torch.int64) else 255
    actual = pad_stack(maps, pad_value=pad_value, **options)
    assert actual.dtype == dtype
    assert torch.equal(
        actual.long(), pad_stack_reference(maps, pad_value=pad_value, **options).long()
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("width", [1024, 1031])
def test_crops_start_at_any_address(device, width):
    whole = torch.randint(0, 255, (3, 40, width + 3), dtype=torch.uint8, device=device)
    maps = [whole[n, n:, n:width] for n in range(3)]
    assert torch.equal(
        pad_stack(maps, size=(40, width)), pad_stack_reference(maps, size=(40, width))
    )


@pytest.mark.parametrize("device", DEVICES)
def test_degenerate(device):
    assert pad_stack([torch.zeros(0, 3, dtype=torch.uint8, device=device)]).shape == (1, 0, 3)
    assert (
        pad_stack([torch.zeros(0, 3, dtype=torch.uint8, device=device)], size=(2, 3)) == 255
    ).all()


def test_rejects():
    m = torch.zeros(3, 4, dtype=torch.uint8)
    for error, text, call in [
        (ValueError, "empty list", lambda: pad_stack([])),
        (TypeError, "expected integer maps, got torch.float32", lambda: pad_stack([m.float()])),
        (
            ValueError,
            r"pad_value in \[0, 255\] for torch.uint8, got -1",
            lambda: pad_stack([m], pad_value=-1),
        ),
        (
            ValueError,
            r"maps \(H, W\) or \(1, H, W\), got \(2, 3, 4\)",
            lambda: pad_stack([m.expand(2, 3, 4)]),
        ),
        (ValueError, r"no larger than size \(2, 9\)", lambda: pad_stack([m], size=(2, 9))),
        *(
            (ValueError, "two whole numbers", lambda size=size: pad_stack([m], size=size))
            for size in [(9,), (9, 9, 9), 9, (9.7, 9.2), ("9", "9"), ()]
        ),
        (ValueError, "one dtype on one device", lambda: pad_stack([m, m.long()])),
    ]:
        with pytest.raises(error, match=text):
            call()


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    maps = [torch.zeros(3, 4, dtype=torch.uint8, device=device)]
    torch.library.opcheck(torch.ops.segfast.pad_stack.default, (maps, [4, 5], 255))


def test_compile():
    maps = [torch.zeros(3, 4, dtype=torch.uint8), torch.ones(2, 5, dtype=torch.uint8)]
    assert torch.equal(torch.compile(pad_stack, fullgraph=True)(maps), pad_stack(maps))
