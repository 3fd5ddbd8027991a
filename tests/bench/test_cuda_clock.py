"""Measuring on a GPU, without one: the order of what is queued, and what the numbers are made of."""

# SPDX-License-Identifier: Apache-2.0

import inspect
import time
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from segfast.bench import cuda_clock, harness
from segfast.bench.cuda_clock import CudaClock

KIB = 1 << 10


@pytest.fixture
def device(monkeypatch):
    """A card that writes down what it is asked to do; its clock stands at 0.25 ms."""
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("event")

        def synchronize(self):
            log.append("wait")

        def elapsed_time(self, end):
            return 0.25

    def sleep(cycles):
        log.append(("sleep", cycles))

    def sum_(buffer):
        log.append("read")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", sleep)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("synchronize"))
    monkeypatch.setattr(torch.Tensor, "sum", sum_)
    monkeypatch.setattr(cuda_clock, "_l2_bytes", lambda: 64 * KIB)
    buffer = torch.ones(256 * KIB // 4)
    monkeypatch.setattr(cuda_clock, "_eviction_buffer", lambda: buffer)
    return SimpleNamespace(log=log, buffer=buffer)


def test_sleeps_evicts_and_times_the_call_alone(device):
    clock = CudaClock()

    def call():
        device.log.append("call")
        return torch.zeros(KIB)

    clock.warm_up("side", call)
    assert device.log == ["call", "synchronize", "call", "synchronize"]
    device.log.clear()
    assert clock.once_ms("side", call) == 0.25
    (name, cycles), *rest = device.log
    assert name == "sleep"
    assert 0.2 * cuda_clock.CYCLES_PER_MS <= cycles <= 20 * cuda_clock.CYCLES_PER_MS
    assert rest == ["read", "event", "call", "event", "wait"]
    assert len(clock.host_ms["side"]) == 1
    # 4 KiB of results: as many bytes of the cache are dirty before the call.
    assert (device.buffer[:KIB] == 0).all()
    assert (device.buffer[KIB:] == 1).all()


def test_the_device_sleeps_longer_than_the_host_takes(device):
    clock = CudaClock()
    clock.warm_up("slow", lambda: time.sleep(0.004) or torch.zeros(1))
    clock.once_ms("slow", lambda: None)
    cycles = next(entry[1] for entry in device.log if entry[0] == "sleep")
    assert cycles >= 4 * cuda_clock.CYCLES_PER_MS


def test_no_more_is_dirtied_than_the_cache_holds(device):
    cuda_clock.evict(100 * KIB)
    assert (device.buffer == 0).count_nonzero() == 16 * KIB  # 64 KiB


def test_extra_peak(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: device.log.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1 << 20)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 8 << 20)
    call = lambda: (torch.zeros(1 << 18), torch.zeros(1 << 18))  # noqa: E731  (2 MiB of results)
    assert cuda_clock.extra_peak_mib(call) == 5.0
    assert device.log == ["synchronize", "reset", "synchronize"]


@pytest.mark.parametrize(("kinds", "expected"), [("CDDCD", 3), ("CC", None)])
def test_kernel_count(monkeypatch, device, kinds, expected):
    types = {"C": DeviceType.CPU, "D": DeviceType.CUDA}

    class Profiler:
        def __init__(self, activities):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def events(self):
            return [SimpleNamespace(device_type=types[kind]) for kind in kinds]

    monkeypatch.setattr(cuda_clock, "profile", Profiler)
    assert cuda_clock.kernel_count(lambda: None) == expected


def test_same_bits():
    assert cuda_clock.same_bits(lambda: (torch.tensor([float("nan"), 1.0]), torch.arange(3)))
    values = iter(range(9))
    assert not cuda_clock.same_bits(lambda: torch.tensor([0, next(values) // 2]))
    signs = iter([0.0, 0.0, -0.0])
    assert not cuda_clock.same_bits(lambda: torch.tensor(next(signs)))


def test_a_row_of_a_case(monkeypatch, device):
    """What `harness.measure` makes of it: memory, host time and bits beside the times."""
    monkeypatch.setattr(harness, "LEAST_MS", 0.0)
    monkeypatch.setattr(cuda_clock, "extra_peak_mib", lambda call: 7.0)
    work = harness.Work(
        segfast=lambda: torch.ones(2),
        eager=lambda: torch.ones(2),
        compiled=lambda: lambda: torch.ones(2),
        check=lambda: None,
        floor_bytes=250_000,
        elements=1,
    )
    case = harness.Case("op", "case", {}, lambda **_: work)
    (row,) = harness.measure(case, "cuda", 2, True, {torch.get_num_threads(): 2.0})
    assert (row["segfast_ms"], row["compiled_ms"], row["rounds"]) == (0.25, 0.25, 2)
    assert row["percent_of_copy"] == pytest.approx(50.0)  # 250 kB at 2 GB/s are 0.125 ms
    assert (row["eager_mib"], row["compiled_mib"], row["same_bits"]) == (7.0, 7.0, True)
    assert row["segfast_host_ms"] >= 0


@pytest.mark.parametrize("op", harness.op_names())
def test_every_operator_has_cases_of_a_gpus_size(op):
    large, small = harness.cases([op], "CUDA_CASES"), harness.cases([op])
    assert large
    for case in [*large, *small]:
        inspect.signature(case.setup).bind(**case.parameters, device="cuda")
    assert len({case.name for case in large}) == len(large)


@pytest.mark.parametrize(("op", "parameters"), [
    ("confusion_matrix", {"labels": "noise", "shape": (2, 9, 7), "num_classes": 150, "dtype": torch.int64}),
    ("normalize_pad_stack", {"count": 2, "interleaved": True, "dtype": torch.bfloat16, "odd": False}),
    ("normalize_pad_stack", {"count": 14, "interleaved": False, "dtype": torch.float32, "odd": True}),
    ("pad_stack", {"count": 2, "dtype": torch.int64}),
    ("upsample_confusion_matrix", {"shape": (1, 5, 8, 8), "size": 32, "dtype": torch.bfloat16}),
], ids=str)  # fmt: skip
def test_new_parameters_of_the_cases(op, parameters):
    """Sizes that a CPU can take: both sides run, and the check passes."""
    case = harness.cases([op])[0]._replace(parameters=parameters)
    work = case.work("cpu")
    work.check()
    assert len(cuda_clock.tensors(work.eager())) == len(cuda_clock.tensors(work.segfast()))
    assert work.floor_bytes > 0
