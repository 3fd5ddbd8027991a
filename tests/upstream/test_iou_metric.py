"""IoUMetric beside mmseg's: equal at its two decimals, and where it is not, on purpose."""

# SPDX-License-Identifier: Apache-2.0
import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from segfast.errors import ConfigError, LabelError
from segfast.evaluation import IoUMetric

pytest.importorskip("hypothesis")
upstream = pytest.importorskip("mmseg.evaluation", exc_type=ImportError)
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

NAMES = ["mIoU", "mDice", "mFscore"]


def sample(pred, label, **meta):
    return {
        "pred_sem_seg": {"data": torch.as_tensor(pred)},
        "gt_sem_seg": {"data": torch.as_tensor(label)},
        **meta,
    }


def scores(kind, samples, num_classes, **settings_):
    metric = kind(**settings_)
    metric.dataset_meta = {"classes": [f"class {k}" for k in range(num_classes)]}
    for one in samples:
        metric.process({}, [one])
    return metric.evaluate(len(samples))


def exact_means(samples, num_classes, **settings_):
    """The means in percent, float64 and not rounded."""
    metric = IoUMetric(**settings_)
    metric.dataset_meta = {"classes": [""] * num_classes}
    metric.process({}, samples)
    (counts,) = metric.results
    return {f"m{k}": 100 * np.nanmean(v) for k, v in metric.scores(counts.numpy()).items()}


def assert_same_decimals(ours, theirs, exact):
    """Equal as printed; only a mean that float32 cannot tell from the edge of two decimals may fall to either."""
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        if math.isnan(value):
            assert math.isnan(ours[name]), name
            continue
        from_edge = abs(100 * exact.get(name, 0.0) % 1 - 0.5)
        assert abs(ours[name] - float(value)) < (1e-4 if from_edge > 1e-3 else 0.0101), name


@st.composite
def data_sets(draw):
    """A few images of some classes: some absent, some ignored, predictions better than chance."""
    num_classes = draw(st.integers(2, 12))
    ignore_index = draw(st.sampled_from([255, 0, num_classes - 1]))
    right, ignored = draw(st.sampled_from([0.0, 0.5, 0.95])), draw(st.sampled_from([0.0, 0.3, 1.0]))
    most = draw(st.integers(1, num_classes))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    samples = []
    for _ in range(draw(st.integers(1, 4))):
        shape = (1, draw(st.integers(2, 30)), draw(st.integers(2, 30)))
        label = torch.randint(0, most, shape)
        pred = torch.where(torch.rand(shape) < right, label, torch.randint(0, num_classes, shape))
        label[torch.rand(shape) < ignored] = ignore_index
        samples.append(sample(pred, label))
    options = {
        "ignore_index": ignore_index,
        "iou_metrics": draw(st.sampled_from([["mIoU"], ["mDice"], ["mFscore"], NAMES, "mIoU", NAMES[::-1]])),
        "nan_to_num": draw(st.sampled_from([None, 0, -1])),
        "beta": draw(st.sampled_from([1, 2])),
    }  # fmt: skip
    return samples, num_classes, options


@settings(max_examples=300)
@given(data_sets())
def test_scores(case):
    samples, num_classes, options = case
    ours, theirs = (
        scores(k, samples, num_classes, **options) for k in (IoUMetric, upstream.IoUMetric)
    )
    with warnings.catch_warnings(action="ignore"):
        exact = exact_means(samples, num_classes, **options)
    assert_same_decimals(ours, theirs, exact)


@settings(max_examples=50)
@given(st.booleans(), st.integers(0, 2**31))
def test_files(tmp_path_factory, reduce_zero_label, seed):
    rng = np.random.default_rng(seed)
    pred = rng.integers(0, 100, (1, 5, 7))
    one = sample(pred, pred, img_path="folder/a.b.jpg", reduce_zero_label=reduce_zero_label)
    images = []
    for kind in (IoUMetric, upstream.IoUMetric):
        folder = tmp_path_factory.mktemp("written")
        assert scores(kind, [one], 100, output_dir=str(folder), format_only=True) == {}
        (path,) = folder.iterdir()
        images.append((path.name, np.asarray(Image.open(path)).tolist()))
    assert images[0] == images[1]


def test_prefix():
    one = sample([[[0, 1]]], [[[0, 1]]])
    assert scores(IoUMetric, [one], 2, prefix="val") == scores(
        upstream.IoUMetric, [one], 2, prefix="val"
    )


def test_numbers_are_python_floats():
    one = sample([[[0, 1, 1]]], [[[0, 1, 0]]])
    ours, theirs = (scores(k, [one], 2) for k in (IoUMetric, upstream.IoUMetric))
    assert type(ours["mIoU"]) is float
    assert type(theirs["mIoU"]) is np.float32


def test_labels_out_of_range_are_an_error():
    """Upstream takes them out of the labels and leaves their predictions in: the IoU falls silently."""
    one = sample([[[0, 1]]], [[[0, 200]]])
    assert scores(upstream.IoUMetric, [one], 2)["mIoU"] == 50
    with pytest.raises(LabelError, match="the first is 200"):
        scores(IoUMetric, [one], 2)


def test_one_class_is_no_bin_for_everything():
    """Upstream's histogram over [0, 0] falls back to the data's own range: a wrong prediction counts as right area."""
    one = sample([[[0, 5]]], [[[0, 0]]])
    assert upstream.IoUMetric.intersect_and_union(*(x["data"] for x in list(one.values())[:2]), 1, 255)[2] == 2  # fmt: skip
    with pytest.raises(LabelError):
        scores(IoUMetric, [one], 1)


def test_counts_do_not_saturate():
    """Upstream adds float32: a pixel more than 2^24 of a class is lost."""
    lots, one = torch.tensor([2.0**24]), torch.tensor([1.0])
    assert lots + one == lots
    metric = IoUMetric()
    metric.dataset_meta = {"classes": ["a", "b"]}
    big = torch.tensor([[2**24, 0], [0, 2**24]])
    metric.compute_metrics([big, torch.tensor([[0, 1], [0, 0]])])
    assert "16,777,217" in metric.last_table


@pytest.mark.parametrize(("options", "at"), [({"iou_metrics": ["mIou"]}, "evaluate"), ({"format_only": True}, "evaluate")])  # fmt: skip
def test_wrong_settings_are_refused_at_construction(options, at):
    one = sample([[[0]]], [[[0]]])
    with pytest.raises((KeyError, TypeError)):
        scores(upstream.IoUMetric, [one], 2, **options)
    with pytest.raises(ConfigError):
        IoUMetric(**options)
