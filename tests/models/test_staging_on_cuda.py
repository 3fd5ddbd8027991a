"""Staging on a GPU: equal results, one copy, no waiting, no buffer used again too early."""

# SPDX-License-Identifier: Apache-2.0
import sys
import threading
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from staging_batches import MEAN, STD, assert_same, make_batch, tensors_of

from segfast.datasets import ShapesDataset
from segfast.datasets.loader import build_dataloader
from segfast.models import BaseDataPreprocessor, SegDataPreProcessor, Segmentor, SegNetS
from segfast.runner import OptimWrapper
from segfast.runner.prefetch import Prefetcher, fetch_ahead

pytestmark = pytest.mark.cuda
SIZES = ((37, 53), (64, 31), (48, 48))
POISON = 0xA5
MOMENT = 50_000_000  # clock cycles that the device spends doing nothing: about 25 ms


def preprocessor(staging=True, device="cuda", **options):
    return SegDataPreProcessor(MEAN, STD, size_divisor=16, staging=staging, **options).to(device)


@pytest.fixture
def no_sync():
    """A function that forbids waiting for the device from then on, until the test ends."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"label_dtype": torch.int64},
        {"dtype": torch.float32},
        {"dtype": torch.int16, "channels": 13},
    ],
    ids=["uint8", "int64 labels", "float", "13 bands"],
)
def test_batches_are_the_same_as_unstaged(how, training, ahead):
    batch = make_batch(*SIZES, **how)
    options = (
        {"size_divisor": 16}
        if how.get("channels")
        else {"mean": MEAN, "std": STD, "bgr_to_rgb": True}
    )
    module = SegDataPreProcessor(**options).to("cuda")
    flight = module.stage(batch) if ahead else None
    out = module(batch, training)
    if ahead:
        assert not any(tensor in flight for tensor in tensors_of(batch))
    assert all(tensor.is_cuda for tensor in tensors_of(out))
    assert_same(out, SegDataPreProcessor(**options, staging=False).to("cuda")(batch, training))


def test_any_structure_is_the_same_as_unstaged():
    data = {"a": (torch.ones(2), make_batch((3, 4))["data_samples"]), "b": torch.zeros(0, 3), "c": "text",
            "d": torch.tensor(5), "e": torch.rand(6, 7).t()[::2]}  # fmt: skip
    out = BaseDataPreprocessor().cuda()(data)
    assert_same(out, BaseDataPreprocessor(staging=False).cuda()(data))
    assert all(tensor.is_cuda for tensor in tensors_of(out))
    assert out["c"] == "text"


def copies_to_the_device(module, batch):
    module(batch, True)  # the first time buffers are made
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        module(batch, True)
        torch.cuda.synchronize()
    return [event.name for event in profile.events() if event.name.startswith("Memcpy HtoD")]


def test_one_copy_per_batch_from_pinned_memory():
    batch = make_batch(*SIZES)
    names = copies_to_the_device(preprocessor(), batch)
    assert len(names) == 1, names
    assert "Pinned" in names[0]
    assert len(copies_to_the_device(preprocessor(staging=False), batch)) >= 2 * len(SIZES)


def test_the_host_never_waits(no_sync):
    batches = [make_batch(*SIZES) for _ in range(6)]
    module, plain = preprocessor(), preprocessor(staging=False)
    want = [plain(batch, True) for batch in batches]
    module(batches[0], True)
    no_sync()
    with pytest.raises(RuntimeError, match="synchroniz"):
        plain(batches[0], True)
    out = [module(batch, True) for batch in batches]
    torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(out, want, strict=True):
        assert_same(a, b)


def test_the_copy_runs_beside_the_computation():
    batch = make_batch(*SIZES)
    module = preprocessor()
    want = preprocessor(staging=False)(batch, True)
    for _ in range(
        3
    ):  # buffers, kernels and blocks of memory are all there: making one may wait for the device
        torch.cuda._sleep(1)
        module(batch, True)
        torch.cuda.synchronize()
    torch.cuda._sleep(40 * MOMENT)
    busy = torch.cuda.Event()
    busy.record()
    flight = module.stage(batch)
    flight._event.synchronize()
    assert not busy.query()  # the copy is done, the computation is not
    out = module(batch, True)
    assert not busy.query()  # nor did the consumer make the host wait
    assert_same(out, want)


@pytest.mark.parametrize("own_stream", [False, True])
def test_a_slow_consumer_reads_what_was_sent_to_it(own_stream):
    """Device memory is free for the next batch only when the kernels that read it are done."""
    module = preprocessor()
    batches = [make_batch(*SIZES) for _ in range(8)]
    want = [preprocessor(staging=False)(batch, True) for batch in batches]
    module(batches[0], True)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream() if own_stream else torch.cuda.current_stream()
    out = []
    with torch.cuda.stream(stream):
        for batch in batches:
            torch.cuda._sleep(MOMENT)
            out.append(module(batch, True))  # the flight ends here, long before the kernels run
    torch.cuda.synchronize()
    for a, b in zip(out, want, strict=True):
        assert_same(a, b)


def test_a_slow_bus_delays_packing_and_spoils_nothing():
    """A host buffer is packed again only when its last copy is done."""
    module = BaseDataPreprocessor().cuda()
    sources = [torch.randint(0, 256, (300_000,), dtype=torch.uint8) for _ in range(7)]
    module(sources[0])  # makes the stream
    flights = []
    for source in sources:
        with torch.cuda.stream(module.ring._stream):
            torch.cuda._sleep(MOMENT)
        flights.append(module.stage(source))
    for source, flight in zip(sources, flights, strict=True):
        assert torch.equal(flight.take(source).cpu(), source)


def test_kept_views_keep_their_memory():
    module = BaseDataPreprocessor().cuda()
    sources = [torch.randint(0, 256, (100_000,), dtype=torch.uint8) for _ in range(10)]
    kept = [module(source) for source in sources]
    for source, view in zip(sources, kept, strict=True):
        assert torch.equal(view.cpu(), source)


def test_poisoned_buffers_are_overwritten_before_they_are_read():
    batches = [make_batch(*SIZES) for _ in range(4)]
    module = preprocessor()
    want = [preprocessor(staging=False)(batch, True) for batch in batches]
    module(batches[0], True)
    module(batches[0], True)
    for batch, expected in zip(batches, want, strict=True):
        torch.cuda.synchronize()
        for slot in module.ring._slots:
            slot.buffer.fill_(POISON)
        with torch.cuda.stream(module.ring._stream):
            waste = [
                torch.full((1 << 20,), POISON, dtype=torch.uint8, device="cuda") for _ in range(8)
            ]
            del waste  # the next device buffer is one of these
        assert_same(module(batch, True), expected)


def test_host_buffers_are_pinned_and_grow():
    module = BaseDataPreprocessor().cuda()
    for size in (10, 5_000_000, 10, 9_000_000, 3):
        source = torch.randint(0, 256, (size,), dtype=torch.uint8)
        assert torch.equal(module(source).cpu(), source)
    slots = [slot.buffer for slot in module.ring._slots]
    assert all(buffer.is_pinned() for buffer in slots)
    assert max(buffer.numel() for buffer in slots) >= 9_000_000


def test_pinned_tensors_fly_on_their_own_if_asked_to(no_sync):
    batch = make_batch(*SIZES)
    batch["inputs"] = [image.pin_memory() for image in batch["inputs"]]
    batch["data_samples"] = [sample.pin_memory() for sample in batch["data_samples"]]
    want = preprocessor(staging=False)(batch, True)
    direct = preprocessor(non_blocking=True)
    assert direct.stage(batch) is None
    direct(batch, True)
    no_sync()
    out = direct(batch, True)
    torch.cuda.set_sync_debug_mode("default")
    assert_same(out, want)
    assert preprocessor().stage(batch) is not None


def test_nothing_is_staged_into_a_graph():
    module = preprocessor()
    batch = make_batch(*SIZES)
    module(batch, True)
    x = torch.ones(3, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x + 1
        flight = module.stage(batch)
    assert flight is None
    graph.replay()
    assert y.tolist() == [2.0] * 3
    assert module.stage(batch) is not None


def test_another_device_than_the_current_one_from_another_thread():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two devices")
    batch = make_batch(*SIZES)
    module = preprocessor(device="cuda:1")
    flights = []
    thread = threading.Thread(target=lambda: flights.append(module.stage(batch)))
    thread.start()
    thread.join()
    assert torch.cuda.current_device() == 0
    out = module(batch, True)
    assert {tensor.device.index for tensor in tensors_of(out)} == {1}
    assert_same(out, preprocessor(staging=False, device="cuda:1")(batch, True))


def losses_of_training(staging, num_workers, forbid_waiting):
    """Losses of steps that prefetch where they can; nothing waits from the third on.

    The learning rate is 0: gradients of a resize in the network are sums in any order, forward passes are not.
    """
    torch.manual_seed(0)
    config = {"type": "SegDataPreProcessor", "mean": MEAN, "std": STD, "staging": staging}
    model = Segmentor(SegNetS(5, width=8), num_classes=5, data_preprocessor=config).to("cuda")
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    loader = build_dataloader(
        {"dataset": ShapesDataset(num_images=24), "batch_size": 3, "num_workers": num_workers, "persistent_workers": False,
         "sampler": {"type": "DefaultSampler", "seed": 3}}, seed=3
    )  # fmt: skip
    losses = []
    with fetch_ahead(loader, model) as batches:
        assert isinstance(batches, Prefetcher) == (staging and num_workers > 0)
        for i, batch in enumerate(batches):
            if i == 2:
                forbid_waiting()
            losses.append(model.train_step(batch, optim)["loss"].detach())
    torch.cuda.set_sync_debug_mode("default")
    return torch.stack(losses).cpu()


def test_prefetched_training_is_the_same_and_never_waits(no_sync):
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        want = losses_of_training(False, 0, lambda: None)
        assert len(want.unique()) == len(want) == 8
        for workers in (0, 2):
            assert torch.equal(losses_of_training(True, workers, no_sync), want)
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before
