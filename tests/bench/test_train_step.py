"""The whole-step bench on a CPU: both sides agree, a wrong side is caught, waits are counted."""

# SPDX-License-Identifier: Apache-2.0

import json
import warnings

import pytest
import torch

from segfast.bench.e2e import sides, syncs, train_step
from segfast.bench.e2e.data import Crops
from segfast.bench.e2e.net import PyramidNet
from segfast.models import Segmentor


def test_net_has_the_usual_size_and_stride():
    net = PyramidNet(150)
    assert 25e6 < sum(p.numel() for p in net.parameters()) < 32e6
    small = PyramidNet(7, **train_step.QUICK.net)
    assert small(torch.zeros(2, 3, 64, 96)).shape == (2, 7, 16, 24)


def test_both_sides_see_the_same_data():
    ours, eager = (Crops((16, 24), 5, dtype) for dtype in (torch.uint8, torch.int64))
    for index in (0, 9):
        a, b = ours[index], eager[index]
        assert a["inputs"].shape == (3, 16, 24)
        assert torch.equal(a["inputs"], b["inputs"])
        labels = [item["data_samples"].gt_sem_seg.data for item in (a, b)]
        assert [y.dtype for y in labels] == [torch.uint8, torch.int64]
        assert torch.equal(labels[0].long(), labels[1])
    crops = {ours[k]["inputs"].numpy().tobytes() for k in range(0, 64, 8)}
    assert len(crops) > 2  # of one picture: not only the two ways to flip it


def test_sides_agree():
    compared = train_step.check(train_step.QUICK, "cpu")
    assert compared["loss"]["segfast"] == pytest.approx(compared["loss"]["eager"], rel=2e-3)
    assert compared["val_pixels"]["counted"] > 0


def weighted(net, num_classes):
    return Segmentor(net, {"type": "CrossEntropyLoss", "loss_weight": 1.1}, num_classes=num_classes)


@pytest.mark.parametrize(("name", "value", "problem"), [
    ("segmentor", weighted, "loss: eager"),
    ("SGD", {**sides.SGD, "lr": 2e-3}, "weights_moved: eager"),
    ("STD", [1.0, 1.0, 1.0], "fall to another class"),
])  # fmt: skip
def test_a_side_that_computes_something_else_is_caught(monkeypatch, name, value, problem):
    init = sides.SegfastSide.__init__

    def wrong(self, *arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(sides, name, value)
            init(self, *arguments, **options)

    monkeypatch.setattr(sides.SegfastSide, "__init__", wrong)
    with pytest.raises(AssertionError, match=problem):
        train_step.check(train_step.QUICK, "cpu")


def test_parts_that_have_no_time_are_named(tmp_path):
    out = tmp_path / "step.json"
    assert train_step.main([str(out), "cpu", "0.001", "--quick"]) == 1
    record = json.loads(out.read_text())
    assert record["problems"] == dict.fromkeys(
        ["train", "val", "train_with_loading"], "AssertionError: no time was left"
    )
    assert record["check"]["loss"]


def test_a_part_that_fails_does_not_lose_the_others(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("no shared\nmemory")

    monkeypatch.setattr(train_step, "measure_loading", broken)
    out = tmp_path / "step.json"
    assert train_step.main([str(out), "cpu", "100", "--quick"]) == 1
    record = json.loads(out.read_text())
    assert record["problems"] == {"train_with_loading": "OSError: no shared memory"}
    assert record["train"]["ratio"] > 0
    assert record["val"]["ratio"] > 0


@pytest.mark.parametrize("raises", [False, True])
def test_waits_are_counted(monkeypatch, raises):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    counter = syncs.SyncCounter("cuda")

    def work():
        with counter:
            for _ in range(3):  # the same text from the same line counts each time
                warnings.warn("called a synchronizing CUDA operation", UserWarning, stacklevel=1)
            warnings.warn("something else", UserWarning, stacklevel=1)
            if raises:
                raise RuntimeError("stopped")

    if raises:
        with pytest.raises(RuntimeError, match="stopped"):
            work()
    else:
        work()
    assert (counter.count, counter.per(2)) == (3, 1.5)
    assert modes == ["warn", "default"]
    assert syncs.SyncCounter("cpu").per(2) is None
