"""The prefetcher: order, one ahead, errors in their turn, exact resume, and its absence on the CPU."""

# SPDX-License-Identifier: Apache-2.0

import gc
import sys
import threading
import time
import weakref
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parent))
from toys import ToyData, ToyModel, toy_config

from segfast.datasets import ShapesDataset
from segfast.datasets.loader import build_dataloader
from segfast.errors import DataError
from segfast.models import Segmentor, SegNetS
from segfast.models.staging import StagingRing
from segfast.runner import Hook, Runner
from segfast.runner.prefetch import Prefetcher, fetch_ahead


class Flight:
    """What the fake stager returns: the batch it was made of."""

    def __init__(self, batch):
        self.batch = batch


class Stager:
    """Notes what was staged, and lets the test wait for it."""

    def __init__(self):
        self.staged = []
        self.flights = weakref.WeakSet()
        self.changed = threading.Condition()

    def __call__(self, batch):
        with self.changed:
            self.staged.append(batch)
            flight = Flight(batch)
            self.flights.add(flight)
            self.changed.notify_all()
        return flight

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.staged) >= count, timeout=20)

    def flying(self):
        return sorted(flight.batch for flight in self.flights)


def prefetch_threads():
    return [t for t in threading.enumerate() if t.name.startswith("segfast-prefetch")]


def test_order_and_never_more_than_one_ahead():
    stage = Stager()
    with Prefetcher(range(6), stage) as batches:
        seen = []
        for batch in batches:
            seen.append(batch)
            stage.wait_for(min(batch + 2, 6))  # the next one is staged while this one is in use
            assert stage.staged == list(range(min(batch + 2, 6)))
            gc.collect()
            assert batch in stage.flying()  # alive until its step is done
            assert len(stage.flying()) <= 2
        assert seen == list(range(6))
        assert list(batches) == seen  # a second pass begins anew
    assert not prefetch_threads()
    assert not stage.flying()


def test_a_flight_is_let_go_when_the_next_batch_is_asked_for():
    stage = Stager()
    released = []

    def slow_stage(batch):
        deadline = time.monotonic() + 5
        while batch > 0 and stage.flying() and time.monotonic() < deadline:
            time.sleep(0.001)
        released.append(not stage.flying())
        return stage(batch)

    with Prefetcher(range(3), slow_stage) as ahead:
        assert list(ahead) == [0, 1, 2]
    assert released == [True] * 3


def test_staging_happens_in_another_thread_and_fetching_too():
    threads = set()

    def batches():
        for i in range(3):
            threads.add(("fetch", threading.current_thread().name[:16]))
            yield i

    with Prefetcher(
        batches(), lambda _: threads.add(("stage", threading.current_thread().name[:16]))
    ) as ahead:
        assert list(ahead) == [0, 1, 2]
    assert threads == {("fetch", "segfast-prefetch"), ("stage", "segfast-prefetch")}


@pytest.mark.parametrize("where", ["fetch", "stage"])
def test_an_error_is_raised_in_its_turn(where):
    error = DataError("broken.png: not an image")

    def batches():
        yield from range(2)
        if where == "fetch":
            raise error
        yield 2

    def stage(batch):
        if batch == 2:
            raise error

    seen = []
    with pytest.raises(DataError, match="broken") as caught, Prefetcher(batches(), stage) as ahead:
        seen.extend(ahead)
    assert seen == [0, 1]
    assert caught.value is error
    assert not prefetch_threads()


def test_an_error_in_the_step_ends_the_thread_and_frees_the_flights():
    stage = Stager()

    def step():
        with Prefetcher(iter(range(100)), stage) as ahead:
            for batch in ahead:
                if batch == 3:
                    raise KeyError("step")

    with pytest.raises(KeyError):
        step()
    assert not prefetch_threads()
    assert len(stage.staged) <= 5
    gc.collect()
    assert not stage.flying()


def test_an_error_leaves_no_cycle_that_holds_the_iterator():
    """Workers end when their iterator is freed: not at the next cycle collection, but now."""

    class Batches:
        def __iter__(self):
            return self

        def __next__(self):
            raise DataError("broken.png")

    batches = Batches()
    alive = weakref.ref(batches)
    gc.disable()
    try:
        try:
            with Prefetcher(batches, lambda batch: None) as ahead:
                del batches
                for _ in ahead:
                    pass
        except DataError:
            pass
        del ahead
        assert alive() is None
    finally:
        gc.enable()


def test_stopping_early_waits_for_the_fetch_under_way():
    release, entered = threading.Event(), threading.Event()

    def batches():
        yield 0
        entered.set()
        assert release.wait(20)
        yield 1

    with Prefetcher(batches(), lambda batch: None) as ahead:
        assert next(iter(ahead)) == 0
        assert entered.wait(20)
        threading.Timer(0.05, release.set).start()
    assert release.is_set()
    assert not prefetch_threads()


class Numbers(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index == 7:
            raise DataError("seven.png: unreadable")
        return torch.tensor(index)


def test_the_users_error_comes_out_of_a_worker_as_it_was():
    loader = build_dataloader(
        {"dataset": Numbers(), "batch_size": 2, "num_workers": 1, "persistent_workers": False,
         "sampler": {"type": "DefaultSampler", "shuffle": False}}
    )  # fmt: skip
    seen = []
    with (
        pytest.raises(DataError, match=r"^seven.png: unreadable$"),
        Prefetcher(loader, lambda b: None) as ahead,
    ):
        seen.extend(int(x) for batch in ahead for x in batch)
    assert seen == [0, 1, 2, 3, 4, 5]


def with_ring(model):
    """The model as if it were on a device that needs staging."""
    model.data_preprocessor._ring = StagingRing(torch.device("cpu"))
    return model


def test_fetch_ahead_is_the_dataloader_itself_where_it_is_of_no_use():
    workers, none = DataLoader(ToyData(), num_workers=1), DataLoader(ToyData())
    on_cpu, staging = ToyModel(), with_ring(ToyModel())
    for loader, model, enabled in [(workers, on_cpu, True), (none, staging, True), (workers, staging, False),
                                   (workers, torch.nn.Linear(1, 1), True)]:  # fmt: skip
        ahead = fetch_ahead(loader, model, enabled)
        assert isinstance(ahead, nullcontext)
        assert ahead.enter_result is loader
    with fetch_ahead(workers, staging) as ahead:
        assert isinstance(ahead, Prefetcher)


class Watcher(Hook):
    """Sees which batches the hooks see, and whether they were on their way by then."""

    def __init__(self):
        self.ahead, self.batches, self.threads, self.val_threads = [], [], [], []

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self.val_threads.append(len(prefetch_threads()))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        ring = runner.model.data_preprocessor._ring
        self.threads.append(len(prefetch_threads()))
        if ring is not None:
            self.ahead.append(all(ring._carries(x) for x in data_batch["inputs"]))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.batches.append(torch.stack(data_batch["inputs"]))

    after_val_iter = after_train_iter


def run(work_dir, prefetching, **changes):
    watcher = Watcher()
    changes = {
        "train_dataloader": {
            "batch_size": 4,
            "dataset": {"type": ToyData},
            "num_workers": 2,
            "persistent_workers": False,
        },
        "val_dataloader": {
            "batch_size": 4,
            "dataset": {"type": ToyData, "size": 10},
            "num_workers": 1,
            "persistent_workers": False,
        },
        **changes,
    }
    runner = Runner.from_cfg(toy_config(work_dir, custom_hooks=[watcher], **changes))
    if prefetching:
        with_ring(runner.model)
    runner.train()
    assert not prefetch_threads()
    return runner, watcher


def weights(runner):
    return torch.cat([p.detach().flatten() for p in runner.model.parameters()])


LOOPS = {
    "iter": {"type": "IterBasedTrainLoop", "max_iters": 13, "val_interval": 5},
    "epoch": {"type": "EpochBasedTrainLoop", "max_epochs": 2},
}


@pytest.mark.parametrize("kind", LOOPS)
def test_a_run_is_the_same_with_and_without_and_resumes_exactly(tmp_path, kind):
    by_epoch = kind == "epoch"
    checkpoint = {"interval": 1 if by_epoch else 4, "by_epoch": by_epoch, "max_keep_ckpts": -1}
    changes = {
        "train_cfg": LOOPS[kind],
        "default_hooks": {"checkpoint": checkpoint, "visualization": None},
    }
    plain, plain_watcher = run(tmp_path / "plain", False, **changes)
    ahead, watcher = run(tmp_path / "ahead", True, **changes)
    assert torch.equal(weights(plain), weights(ahead))
    assert plain.metrics == ahead.metrics
    assert len(watcher.batches) == len(plain_watcher.batches)
    assert all(
        torch.equal(a, b) for a, b in zip(watcher.batches, plain_watcher.batches, strict=True)
    )
    assert watcher.ahead == [True] * ahead.iter  # hooks saw the CPU batch, on its way already
    assert set(watcher.threads) == {1}
    assert set(watcher.val_threads) == {
        1 if by_epoch else 2
    }  # the endless training waits with a batch of its own
    assert set(plain_watcher.threads + plain_watcher.val_threads) == {0}

    middle = tmp_path / "ahead" / ("epoch_1.pth" if by_epoch else "iter_8.pth")
    saved = torch.load(middle)
    torch.manual_seed(999)
    resumed, _ = run(tmp_path / "again", True, **changes, resume=True, load_from=str(middle))
    assert saved["meta"]["iter"] == (6 if by_epoch else 8)
    assert torch.equal(weights(resumed), weights(plain))
    assert resumed.metrics == plain.metrics


def test_the_loops_option_switches_it_off(tmp_path):
    loop = {"type": "IterBasedTrainLoop", "max_iters": 3, "val_interval": 3, "prefetch": False}
    _, watcher = run(tmp_path, True, train_cfg=loop, val_cfg={"type": "ValLoop", "prefetch": False})
    assert watcher.threads == watcher.val_threads == [0, 0, 0]
    assert watcher.ahead == [False] * 3


class Stop(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", LOOPS)
def test_an_interrupted_loop_ends_its_thread(tmp_path, kind):
    runner = Runner.from_cfg(
        toy_config(
            tmp_path,
            custom_hooks=[Stop()],
            train_cfg=LOOPS[kind],
            train_dataloader={"batch_size": 4, "dataset": {"type": ToyData}, "num_workers": 1, "persistent_workers": False},
        )
    )  # fmt: skip
    with_ring(runner.model)
    with pytest.raises(KeyboardInterrupt) as caught:  # which holds the frames of the loop
        runner.train()
    assert not prefetch_threads()
    assert caught.tb is not None


def test_without_workers_nothing_is_drawn_early(tmp_path):
    """A data set that draws from the process's generator, as user code does: the checkpoint's state is the step's."""

    class Drawing(ToyData):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            item["inputs"] = item["inputs"] + torch.rand(2)
            return item

    changes = {"train_dataloader": {"batch_size": 4, "dataset": Drawing(), "num_workers": 0}}
    plain, _ = run(tmp_path / "plain", False, **changes)
    ahead, watcher = run(tmp_path / "ahead", True, **changes)
    assert set(watcher.threads) == {0}
    assert torch.equal(weights(plain), weights(ahead))


def test_a_staged_training_step_of_a_segmentor_is_the_same():
    config = {
        "type": "SegDataPreProcessor",
        "mean": [120.0] * 3,
        "std": [60.0] * 3,
        "size_divisor": 32,
    }
    loader = build_dataloader(
        {
            "dataset": ShapesDataset(num_images=6),
            "batch_size": 2,
            "num_workers": 1,
            "persistent_workers": False,
        },
        seed=0,
    )
    losses = []
    for staging in (False, True):
        torch.manual_seed(0)
        model = Segmentor(SegNetS(5, width=4), num_classes=5, data_preprocessor=config)
        if staging:
            with_ring(model)
        with fetch_ahead(loader, model) as batches:
            assert isinstance(batches, Prefetcher) == staging
            losses.append(
                [model(**model.data_preprocessor(batch, True), mode="loss") for batch in batches]
            )
    for a, b in zip(*losses, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
