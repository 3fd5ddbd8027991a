"""What an operator reads and writes: all of its outputs, nothing but its inputs, the same bits on every run."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from calls import CALLS, SHAPES, Sizes, mapped, placed, raw, same_bits
from helpers import DEVICES, LAYOUTS
from surroundings import guarded, poisoned

from segfast.ops import check_labels

WIDE = Sizes(N=2, C=7, small=(33, 65), size=(131, 259))  # several blocks a row, none of them full
PER_CALL = [
    pytest.mark.parametrize("device", DEVICES),
    pytest.mark.parametrize("call", CALLS, ids=repr),
]


def on_every_call(test):
    for mark in PER_CALL:
        test = mark(test)
    return test


@pytest.mark.parametrize("device", DEVICES)
def test_poison_shows(device):
    for byte in (0xFE, 0x55):
        with poisoned(device, byte):
            for size in (700, 5000, 300_000, 3_000_000):
                assert (torch.empty(size, dtype=torch.uint8, device=device) == byte).all()


@on_every_call
def test_every_output_is_written(call, device):
    for sizes in [*SHAPES[:4], WIDE]:
        inputs = placed(call.draw(sizes), device)
        expected = call.run(inputs)
        for byte in (0xFE, 0x55):
            with poisoned(device, byte):
                assert same_bits(call.run(inputs), expected), f"memory held {byte:#x}, {sizes}"


@on_every_call
def test_deterministic_mode(call, device):
    """torch fills new memory with NaN in this mode, and refuses operators that are not deterministic."""
    inputs = placed(call.draw(WIDE), device)
    expected = call.run(inputs)
    torch.use_deterministic_algorithms(True)
    try:
        runs = [call.run(inputs) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(same_bits(run, expected) for run in runs)


@on_every_call
def test_nothing_beside_the_inputs_is_read_or_written(call, device):
    for sizes in (Sizes(), SHAPES[1], WIDE):
        for layout in LAYOUTS:
            inputs = placed(call.draw(sizes), device, layout)
            runs = []
            for bad in (False, True):
                inside, buffers = guarded(inputs, bad=bad)
                before = [buffer.clone() for buffer in buffers]
                runs.append(call.run(inside))
                check_labels()
                assert same_bits(buffers, before), (
                    f"the inputs or their surroundings changed, {layout}"
                )
            assert same_bits(*runs), f"the surroundings of the inputs were read, {layout}"
            call.compare(runs[0], call.run(inputs), inputs)  # sums may go another way round


@on_every_call
def test_same_bits_every_run(call, device):
    inputs = placed(call.draw(WIDE), device)
    expected = call.run(inputs)
    if device == "cuda":
        noise, busy = torch.randn(1024, 1024, device=device), torch.cuda.Stream()
        busy.wait_stream(torch.cuda.current_stream())
    for _ in range(4):
        if device == "cuda":
            with torch.cuda.stream(busy):  # takes multiprocessors away while the operator runs
                for _ in range(4):
                    noise = (noise @ noise).clamp(-1, 1)
        copies = mapped(lambda t: t.clone(memory_format=torch.preserve_format), inputs)
        assert same_bits(call.run(copies), expected)


def test_helpers_see_what_they_should():
    """A kernel that leaves a value out, and one that reads beyond its input, are caught."""
    inputs = {"x": torch.randn(4, 5)}
    (kept, buffers), (spoilt, _) = guarded(inputs, bad=False), guarded(inputs, bad=True)
    beyond = [torch.as_strided(g["x"], (21,), (1,)).sum() for g in (kept, spoilt)]
    assert not same_bits([beyond[0]], [beyond[1]])
    assert raw(kept["x"]).equal(raw(inputs["x"]))
    before = buffers[0].clone()
    torch.as_strided(kept["x"], (21,), (1,))[20] = 1
    assert not same_bits(buffers, [before])
    unwritten = []
    for byte in (0xFE, 0x55):
        with poisoned("cpu", byte):
            unwritten.append(torch.empty(900))
    assert not same_bits([unwritten[0]], [unwritten[1]])
