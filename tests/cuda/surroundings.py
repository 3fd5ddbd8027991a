"""What surrounds a call: memory that betrays unwritten outputs, guards around inputs, a device that is kept busy."""

# SPDX-License-Identifier: Apache-2.0

import ctypes
import os
from contextlib import contextmanager

import pytest
import torch
from calls import mapped
from torch import Tensor

SLEEP_CYCLES = 500_000_000  # about 0.3 s: longer than any host code between two launches here
_M_PERTURB = -6  # glibc's mallopt: memory handed out is filled with the complement of a byte


@contextmanager
def poisoned(device, byte):
    """Memory that torch hands out next holds `byte`, so that two bytes give two results where an output is not written."""
    if device == "cpu":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is None:
            pytest.skip("needs glibc")
        mallopt(_M_PERTURB, byte ^ 0xFF)
        try:
            yield
        finally:
            mallopt(_M_PERTURB, 0)
        return
    if os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING") == "1":
        pytest.skip("needs torch's caching allocator")
    torch.cuda.empty_cache()
    held = [
        torch.full((size,), byte, dtype=torch.uint8, device=device) for size in free_block_sizes()
    ]
    del held
    yield


def free_block_sizes():
    """Sizes that fill the holes of the allocator's segments, and fresh segments for small and for large blocks."""
    sizes = [1 << 20] * 16 + [64 << 20]
    for segment in torch.cuda.memory_snapshot():
        for block in segment["blocks"]:
            size = block["size"] if block["state"] == "inactive" else 0
            if segment["segment_type"] == "small":  # requests up to 1 MiB, segments of 2 MiB
                sizes += [part for part in (min(size, 1 << 20), size - (1 << 20)) if part > 0]
            elif size > 1 << 20:
                sizes.append(size)
    return sizes


def guarded(inputs, *, bad):
    """The inputs with the same strides inside larger buffers, and the buffers.

    The elements before, behind and between are 0, or what no kernel could read without a trace: NaN, or a label that no
    class has. The values start an odd number of elements into their buffer.
    """
    buffers = []

    def guard(x: Tensor) -> Tensor:
        reach = sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) + 1
        fill = 0
        if bad:
            fill = torch.nan if x.is_floating_point() else torch.iinfo(x.dtype).max - 1
        margin = 1025
        buffer = torch.full((margin + reach + margin,), fill, dtype=x.dtype, device=x.device)
        buffers.append(buffer)
        view = buffer.as_strided(x.shape, x.stride(), margin)
        return view.copy_(x)

    return mapped(guard, inputs), buffers


@contextmanager
def no_waiting(device):
    """The code inside neither synchronises nor waits in any other way for a device that is busy. No check on the CPU."""
    if device == "cpu":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP_CYCLES)
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
    still_busy = not torch.cuda.current_stream().query()
    torch.cuda.synchronize()
    assert still_busy, "the host waited for the device"


def captured(run):
    """`run` as a CUDA graph: warmed up on a side stream, as torch asks for, and captured once."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run()
    return graph, outputs


def copy_into(buffers, inputs):
    """The inputs' values into other inputs of the same shapes."""
    for name, value in inputs.items():
        pairs = (
            zip(buffers[name], value, strict=True)
            if isinstance(value, list)
            else [(buffers[name], value)]
        )
        for buffer, x in pairs:
            if isinstance(x, Tensor):
                buffer.copy_(x)
