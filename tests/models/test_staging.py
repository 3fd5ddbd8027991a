"""The staging ring and the preprocessors' staged path, on the CPU: same steps, no streams."""

# SPDX-License-Identifier: Apache-2.0
import copy
import gc
import pickle
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from staging_batches import MEAN, STD, assert_same, image, make_batch, sample, tensors_of

from segfast.models import (
    BaseDataPreprocessor,
    DataPreprocessor,
    ImgDataPreprocessor,
    SegDataPreProcessor,
)
from segfast.models.staging import StagingRing, packable_tensors
from segfast.structures import BaseDataElement, DataSample

CPU = torch.device("cpu")


def staged(module):
    """The module with a ring, which the CPU does not get by itself."""
    module._ring = StagingRing(CPU)
    return module


def test_packable_tensors_are_those_that_cast_data_moves():
    class OwnWay(BaseDataElement):
        def to(self, *args, **kwargs):
            return self

    plain = torch.ones(2)
    graph = torch.ones(2, requires_grad=True)
    lazy = torch.ones(2, dtype=torch.complex64).conj()
    nested = sample(2, 3, edges=BaseDataElement(points=torch.ones(4), names=[torch.ones(5)]))
    own = OwnWay(points=torch.ones(6))
    data = {"a": (plain, [graph, "text", b"raw", None, 3]), "b": [nested, own, lazy, torch.ones(1).to("meta")],
            "c": np.ones(7), "d": torch.nn.Parameter(torch.ones(8), requires_grad=False), "e": torch.eye(9).to_sparse()}  # fmt: skip
    found = {id(t) for t in packable_tensors(data)}
    assert found == {id(plain), id(nested.gt_sem_seg.data), id(nested.edges.points)}


def test_flight_gives_each_tensor_once_and_only_while_it_lives():
    ring = StagingRing(CPU)
    a, b = image(5, 7), torch.tensor(3)
    flight = ring.send([a, b, a])
    assert a in flight
    assert ring.send([a, b]) is None  # on their way
    view = ring.take(a)
    assert torch.equal(view, a)
    assert view.stride() == a.stride()
    assert view.data_ptr() != a.data_ptr()
    assert ring.take(a) is None
    assert ring.take(torch.tensor(3)) is None
    assert a not in flight
    del flight
    assert ring.take(b) is None
    assert not ring._flights
    assert ring.send([]) is None


def test_a_tensor_written_to_after_packing_is_not_taken():
    ring = StagingRing(CPU)
    a = torch.zeros(4)
    flight = ring.send([a])
    a.add_(1)
    assert ring.take(a) is None
    assert a not in flight
    assert torch.equal(staged(BaseDataPreprocessor())({"x": a})["x"], a)


def test_a_new_tensor_at_an_old_address_is_not_mistaken():
    ring = StagingRing(CPU)
    a = torch.zeros(4)
    flight = ring.send([a])
    ring.take(a)
    key = id(a)
    del a
    others = [torch.ones(4) for _ in range(1000)]
    assert all(ring.take(other) is None for other in others if id(other) == key)
    del flight


def test_buffers_grow_and_are_packed_in_turn():
    ring = StagingRing(CPU)
    kept = []
    for size in (10, 3_000_000, 20, 4_000_000, 30, 3_900_000, 0):
        source = torch.randint(0, 256, (size,), dtype=torch.uint8)
        for slot in ring._slots:
            slot.buffer.fill_(0xA5)  # poison: what is not packed now must not be read
        flight = ring.send([source])
        kept.append((source, flight.take(source)))
    for source, view in kept:  # a slot's next turn leaves earlier copies alone
        assert torch.equal(source, view)
    sizes = [slot.buffer.numel() for slot in ring._slots]
    assert sizes == [1 << 20, 4_194_304]  # turns 0, 2, 4, 6 and 1, 3, 5


def test_several_threads_may_send():
    ring = StagingRing(CPU)
    wrong = []

    def work(seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(50):
            source = torch.randint(0, 256, (100_000,), dtype=torch.uint8, generator=generator)
            flight = ring.send([source])
            if not torch.equal(flight.take(source), source):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_copies_and_pickles_start_empty():
    module = staged(BaseDataPreprocessor())
    batch = {"x": torch.ones(3)}
    flight = module.stage(batch)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin._ring is not module._ring
        assert twin._ring.take(batch["x"]) is None
        assert torch.equal(twin(batch)["x"], batch["x"])
    assert batch["x"] in flight


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize(
    ("batch", "options"),
    [
        (
            make_batch((11, 10), (9, 17)),
            {"mean": MEAN, "std": STD, "bgr_to_rgb": True, "size_divisor": 8},
        ),
        (
            make_batch((11, 10), label_dtype=torch.int64),
            {"mean": MEAN, "std": STD, "channels_last": True},
        ),
        (make_batch((8, 9), (7, 7), dtype=torch.int16, channels=13), {}),
        (make_batch((6, 5), dtype=torch.float32), {"size": (6, 6), "test_cfg": {"size": (7, 7)}}),
    ],
    ids=["two sizes", "int64", "13 bands", "float"],
)
def test_segmentation_batches_are_the_same_as_unstaged(batch, options, training, ahead):
    want = SegDataPreProcessor(**options)(batch, training)
    module = staged(SegDataPreProcessor(**options))
    flight = module.stage(batch) if ahead else None
    assert_same(module(batch, training), want)
    if ahead:
        assert not any(t in flight for t in tensors_of(batch))  # all were taken
    assert_same(module(batch, training), want)  # a second time, from the untouched batch


def test_image_and_plain_batches_are_the_same_as_unstaged():
    inputs = [image(5, 6), image(7, 4)]
    for data in (
        {"inputs": inputs, "extra": [torch.arange(3)]},
        {"inputs": torch.rand(2, 3, 4, 5)},
    ):
        want = ImgDataPreprocessor(MEAN, STD, pad_size_divisor=4)(data)
        assert_same(staged(ImgDataPreprocessor(MEAN, STD, pad_size_divisor=4))(data), want)
    data = {"a": (torch.ones(2), [sample(3, 4)]), "b": torch.zeros(0, 3), "c": "text"}
    out = staged(BaseDataPreprocessor())(data)
    assert_same(out, data)
    assert out["c"] == "text"
    assert isinstance(out["a"], tuple)
    assert out["a"][1][0].metainfo == {"img_path": "a.png"}


@pytest.mark.parametrize("training", [True, False])
def test_editing_batches_are_the_same_as_unstaged(training):
    sizes = [(5, 6), (7, 4)]
    inputs = [{"img": image(*size), "noise": torch.rand(3)} for size in sizes]
    truth = [DataSample(gt_img=image(8, 8), metainfo={"gt_channel_order": "RGB"}) for _ in sizes]
    for i, one in enumerate(truth):
        one.set_gt_label(i)
    data = {"inputs": inputs, "data_samples": truth}
    options = {"mean": MEAN, "std": STD, "output_channel_order": "RGB", "pad_value": 7}
    want = DataPreprocessor(**options)(data, training)
    assert_same(staged(DataPreprocessor(**options))(data, training), want)


def test_staging_shares_no_memory_with_the_batch_or_within_it():
    shared = sample(4, 5)
    batch = {"inputs": [image(4, 5)] * 2, "data_samples": [shared, shared]}
    out = staged(BaseDataPreprocessor())(batch)
    pointers = [t.data_ptr() for t in tensors_of(out)]
    # Each tensor flies once; its second occurrence is moved as without a ring, which on the CPU is the tensor itself.
    assert len(set(pointers)) == len(pointers)
    assert out["data_samples"][0] is not shared


def test_what_hooks_change_after_staging_is_what_arrives():
    batch = make_batch((4, 5), (6, 7))
    module = staged(SegDataPreProcessor())
    flight = module.stage(batch)
    batch["inputs"][0] = batch["inputs"][0] + 1  # another tensor
    batch["inputs"][1].mul_(2)  # the same one, written to
    batch["data_samples"][0].set_metainfo({"ori_shape": (1, 2)})
    out = module(batch, True)
    assert_same(out, SegDataPreProcessor()(batch, True))
    assert out["data_samples"][0].ori_shape == (1, 2)
    del flight


def test_a_flight_leaves_nothing_behind():
    module = staged(SegDataPreProcessor())
    batch = make_batch((4, 5))
    flight = module.stage(batch)
    module.forward(batch, True)
    del flight, batch
    gc.collect()
    assert len(module._ring._flights) == 0


def test_inference_mode_counts_no_versions():
    with torch.inference_mode():
        batch = make_batch((4, 5))
        assert_same(staged(SegDataPreProcessor())(batch), SegDataPreProcessor()(batch))


def test_there_is_a_ring_for_cuda_only_and_it_can_be_switched_off():
    for module in (SegDataPreProcessor(), ImgDataPreprocessor(), BaseDataPreprocessor()):
        assert module.ring is None
        assert module.stage({"x": torch.ones(2)}) is None
        assert module.to("meta").ring is None
        module._device = torch.device("cuda", 1)  # no device is touched before something flies
        ring = module.ring
        assert ring.device == torch.device("cuda", 1)
        assert module.ring is ring
        module.staging = False
        assert module.ring is None
        module._device = CPU
        module.staging = True
        assert module.ring is None
    assert SegDataPreProcessor(staging=False).staging is False
    assert ImgDataPreprocessor(staging=False).staging is False
