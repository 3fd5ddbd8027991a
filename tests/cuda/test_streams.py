"""Any stream, any device, captured or not: an operator only adds work to the current stream and never waits for it."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from calls import CALLS, Sizes, mapped, placed, same_bits
from helpers import DEVICES
from surroundings import SLEEP_CYCLES, captured, copy_into, no_waiting

SIZES = Sizes(N=3, C=7, small=(19, 33), size=(77, 131))
on_every_call = pytest.mark.parametrize("call", CALLS, ids=repr)


@pytest.mark.parametrize("device", DEVICES)
@on_every_call
def test_nobody_waits(call, device):
    inputs = placed(call.draw(SIZES), device)
    expected = [t.clone() for t in call.run(inputs)]
    call.run(inputs)  # warm: kernels are loaded, the allocator has the blocks
    with no_waiting(device):
        actual = call.run(inputs)
    assert same_bits(actual, expected)


def wait_unseen_by_torch():
    torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()


@pytest.mark.cuda
def test_waiting_shows():
    x = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match="synchroniz"), no_waiting("cuda"):
        x.sum().item()
    with pytest.raises(AssertionError, match="waited"), no_waiting("cuda"):
        wait_unseen_by_torch()


@pytest.mark.cuda
@on_every_call
def test_side_stream(call):
    """Inputs that arrive late on a side stream; whatever ran elsewhere would read the zeros that were there before."""
    inputs = placed(call.draw(SIZES), "cuda")
    expected = call.run(inputs)
    buffers = mapped(torch.zeros_like, inputs)
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        call.run(buffers)  # warm
        side.synchronize()
        torch.cuda._sleep(SLEEP_CYCLES)
        copy_into(buffers, inputs)
        actual = call.run(buffers)
    default_is_idle = torch.cuda.default_stream().query()
    side.synchronize()
    assert same_bits(actual, expected)
    assert default_is_idle, "work was sent to the default stream"


@pytest.mark.cuda
@on_every_call
def test_graph(call):
    """Forward and backward captured together, replayed on other inputs."""
    first, second = (placed(call.draw(SIZES), "cuda") for _ in range(2))
    buffers = mapped(torch.clone, first)
    graph, outputs = captured(lambda: call.run(buffers))
    for inputs in (second, first):
        copy_into(buffers, inputs)
        graph.replay()
        assert same_bits(outputs, call.run(inputs))


@pytest.mark.cuda
@on_every_call
def test_other_device(call):
    """Tensors on the second device while the first is current."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    inputs = call.draw(SIZES)
    expected = call.run(placed(inputs, "cuda:0"))
    with torch.cuda.device(0):
        actual = call.run(placed(inputs, "cuda:1"))
        assert torch.cuda.current_device() == 0
    assert {t.device for t in actual} == {torch.device("cuda:1")}
    call.compare(tuple(t.to("cuda:0") for t in actual), expected, placed(inputs, "cuda:0"))
