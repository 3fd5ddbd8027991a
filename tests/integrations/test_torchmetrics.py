"""MeanIoU as a torchmetrics Metric: right, exact, and obeying the package's protocol."""

# SPDX-License-Identifier: Apache-2.0
import pickle

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("torchmetrics")

import torchmetrics

from segfast.errors import LabelError, UserError
from segfast.integrations.torchmetrics import MeanIoU

CLASSES = 5


def batches(count=4, classes=CLASSES):
    for _ in range(count):
        labels = torch.randint(0, classes, (2, 24, 32))
        labels[torch.rand(labels.shape) < 0.2] = 255
        yield torch.randn(2, CLASSES, 6, 8), labels


@pytest.mark.parametrize("labelled", [CLASSES, 3])
def test_equals_torchmetrics_jaccard_index(labelled):
    ours = MeanIoU(CLASSES)
    theirs = torchmetrics.classification.MulticlassJaccardIndex(CLASSES, ignore_index=255)
    for logits, labels in batches(classes=labelled):
        ours.update(logits, labels)
        theirs.update(F.interpolate(logits, labels.shape[1:], mode="bilinear"), labels)
    assert ours.confusion_matrix.dtype == torch.int64
    assert torch.equal(ours.confusion_matrix, theirs.confmat)
    assert ours.compute().item() == pytest.approx(theirs.compute().item(), abs=1e-6)


def test_absent_classes_leave_the_mean():
    metric = MeanIoU(3, per_class=True)
    metric.update(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 255]]]))
    assert metric.compute().tolist()[:2] == [0.5, 0.5]
    assert metric.compute().isnan().tolist() == [False, False, True]
    metric.per_class = False
    metric._computed = None
    assert metric.compute() == 0.5


def test_forward_reset_merge_and_pickle():
    first, second = list(batches(2))
    metric = MeanIoU(CLASSES)
    of_batch = metric(*first)
    alone = MeanIoU(CLASSES)
    alone.update(*first)
    assert of_batch == alone.compute()
    metric(*second)
    both = metric.compute()
    assert pickle.loads(pickle.dumps(metric)).compute() == both
    metric.reset()
    assert metric.confusion_matrix.sum() == 0
    metric.update(*second)
    merged = MeanIoU(CLASSES)
    merged.update(*first)
    merged.merge_state(metric)
    assert merged.compute() == both


def test_processes_are_summed():
    """As torchmetrics does it after gathering: every process's matrix, added up."""
    metric = MeanIoU(CLASSES, dist_sync_on_step=False)
    metric.update(*next(batches(1)))
    counts = metric.confusion_matrix.clone()
    metric._sync_dist(dist_sync_fn=lambda x, group=None: [x, 2 * x])
    assert torch.equal(metric.confusion_matrix, 3 * counts)


def test_update_does_not_read_tensors(monkeypatch):
    metric = MeanIoU(CLASSES)

    def refuse(*args):
        raise AssertionError("update waited for a value")

    for name in ("item", "tolist", "__bool__", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    metric.update(*next(batches_without_reading()))


def batches_without_reading():
    yield torch.randn(1, CLASSES, 4, 4), torch.zeros(1, 8, 8, dtype=torch.uint8)


def test_in_a_metric_collection():
    collection = torchmetrics.MetricCollection({"iou": MeanIoU(CLASSES), "fine": MeanIoU(CLASSES)})
    collection.update(*next(batches(1)))
    assert collection.compute()["iou"] == collection.compute()["fine"]


def test_refuses():
    with pytest.raises(UserError, match="at least 1"):
        MeanIoU(0)
    with pytest.raises(UserError, match=r"expected logits \(N, 5, h, w\), got \(1, 4, 2, 2\)"):
        MeanIoU(5).update(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
    with pytest.raises(LabelError, match="the first is 7"):
        MeanIoU(5).update(torch.zeros(1, 2, 2, dtype=torch.long), torch.full((1, 2, 2), 7))
