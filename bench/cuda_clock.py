"""Measures one call on a CUDA device: time by events, extra peak memory, number of kernels, equal bits.

Before each call the device sleeps for as long as the host needs to queue it, so that the events time the device and not
the launches; what the host itself needs is noted beside it. Then the L2 cache is filled with lines that nobody needs: a
buffer larger than any L2 is read (clean lines, dropped at no cost), then as many bytes are written as the call's result
has, up to the L2's size. Without the second step a call would leave its own last writes in the cache, not counted; with
it, it pays for as many of its predecessor's. Inputs therefore never lie in the cache, and one set of them is enough.
"""

# SPDX-License-Identifier: Apache-2.0

import functools
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

EVICTION_BYTES = 256 << 20  # read before each call: more than the L2 of any GPU
COPY_BYTES = 1 << 30
CYCLES_PER_MS = 2_000_000  # no GPU's clock is much faster; on a slower one the sleep is longer
MOST_SLEEP_MS = 20.0
MIB = 1 << 20


class CudaClock:
    """Times calls of several sides; `host_ms` keeps what the host needed for each."""

    def __init__(self) -> None:
        """Nothing called yet."""
        self.host_ms: dict[str, list[float]] = {}
        self._dirty_bytes: dict[str, int] = {}
        self._sleep_ms: dict[str, float] = {}

    def warm_up(self, side: str, call: Callable[[], Any]) -> None:
        """Two calls: what happens once, and how long the host takes when it does not happen."""
        call()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        result = call()
        host_ms = (time.perf_counter() - begin) * 1e3
        torch.cuda.synchronize()
        self._sleep_ms[side] = min(MOST_SLEEP_MS, 0.2 + 1.5 * host_ms)
        self._dirty_bytes[side] = tensor_bytes(result)
        self.host_ms[side] = []

    def once_ms(self, side: str, call: Callable[[], Any]) -> float:
        """The device's time for one call."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(int(self._sleep_ms[side] * CYCLES_PER_MS))
        evict(self._dirty_bytes[side])
        start.record()
        begin = time.perf_counter()
        call()
        self.host_ms[side].append((time.perf_counter() - begin) * 1e3)
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


def evict(dirty_bytes: int) -> None:
    """Fill the L2 cache: see the head of this file."""
    buffer = _eviction_buffer()
    buffer.sum()
    written = min(dirty_bytes, _l2_bytes()) // buffer.element_size()
    buffer[:written].zero_()


@functools.cache
def _eviction_buffer() -> Tensor:
    return torch.zeros(EVICTION_BYTES // 4, device="cuda")


@functools.cache
def _l2_bytes() -> int:
    return getattr(torch.cuda.get_device_properties(), "L2_cache_size", 64 * MIB)


def copy_bandwidth_gbs() -> float:
    """Bytes read plus written per second by a plain copy of random bytes on the device."""
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)

    def copy() -> Tensor:
        return target.copy_(source)

    for _ in range(200):  # also raises the clocks of an idle card
        copy()
    clock = CudaClock()
    clock.warm_up("copy", copy)
    times = [clock.once_ms("copy", copy) for _ in range(21)]
    return 2 * COPY_BYTES / statistics.median(times) / 1e6


def extra_peak_mib(call: Callable[[], Any]) -> float:
    """What one call needs at its peak beyond what was there before and its own result."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    return max(0, peak - before - tensor_bytes(result)) / MIB


def kernel_count(call: Callable[[], Any]) -> int | None:
    """Kernels, copies and fills that one call runs on the device; None where the profiler sees none."""
    call()
    torch.cuda.synchronize()
    try:
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            call()
            torch.cuda.synchronize()
        events = profiler.events()
    except RuntimeError:  # no access to the device's counters
        return None
    return sum(event.device_type == DeviceType.CUDA for event in events) or None


def same_bits(call: Callable[[], Any], times: int = 3) -> bool:
    """Whether repeated calls agree bit by bit."""
    first, *others = ([t.clone() for t in tensors(call())] for _ in range(times))
    return all(
        torch.equal(_bits(a), _bits(b))
        for other in others
        for a, b in zip(first, other, strict=True)
    )


def _bits(tensor: Tensor) -> Tensor:
    """The same memory as bytes, so that NaN equals itself."""
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def tensors(result: Any) -> tuple[Tensor, ...]:
    """What a call returned, as a tuple of tensors."""
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def tensor_bytes(result: Any) -> int:
    """Bytes of what a call returned."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(result))
