"""IoUMetric against a numpy twin; ignored and absent classes; files; repeats in distributed runs."""

# SPDX-License-Identifier: Apache-2.0
import json
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from segfast.errors import ConfigError, LabelError, UserError
from segfast.evaluation import Evaluator, IoUMetric
from segfast.registry import METRICS

CLASSES = ("road", "car", "sky", "tree", "nobody")


def make_samples(count=6, seed=0, num_classes=4, device="cpu", **extra):
    """Dicts as the Evaluator makes them; images of different sizes, a quarter ignored."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        size = (1, 8 + i, 11)
        label = rng.integers(0, num_classes, size).astype(np.uint8)
        wrong = rng.integers(0, num_classes, size)
        pred = np.where(rng.random(size) < 0.6, label, wrong).astype(np.int64)
        label[rng.random(size) < 0.25] = 255
        samples.append(
            {
                "pred_sem_seg": {"data": torch.from_numpy(pred).to(device)},
                "gt_sem_seg": {"data": torch.from_numpy(label).to(device)},
                "img_path": f"folder/image_{i}.jpg",
                **extra,
            }
        )
    return samples


def twin(samples, num_classes, beta=1.0):
    """Per-class areas as boolean sums over all pixels, then the formulas."""
    pred = np.concatenate([s["pred_sem_seg"]["data"].numpy().ravel() for s in samples])
    label = np.concatenate([s["gt_sem_seg"]["data"].numpy().ravel() for s in samples])
    pred, label = pred[label != 255], label[label != 255]
    scores = {k: [] for k in ("IoU", "Acc", "Dice", "Fscore", "Precision", "Recall")}
    with np.errstate(all="ignore"):
        for k in range(num_classes):
            p, t = pred == k, label == k
            inter, union = np.float64((p & t).sum()), (p | t).sum()
            precision, recall = inter / p.sum(), inter / t.sum()
            scores["IoU"].append(inter / union)
            scores["Acc"].append(recall)
            scores["Dice"].append(2 * inter / (p.sum() + t.sum()))
            scores["Precision"].append(precision)
            scores["Recall"].append(recall)
            scores["Fscore"].append(
                (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
            )
    return np.float64((pred == label).mean()), {k: np.array(v) for k, v in scores.items()}


def evaluate(samples, classes=CLASSES, size=None, **options):
    metric = IoUMetric(**options)
    metric.dataset_meta = {"classes": classes}
    for start in range(0, len(samples), 2):
        metric.process(None, samples[start : start + 2])
    return metric, metric.evaluate(len(samples) if size is None else size)


def test_golden_by_hand():
    sample = {
        "pred_sem_seg": {"data": torch.tensor([[[0, 0, 1, 1, 1]]])},
        "gt_sem_seg": {"data": torch.tensor([[[0, 1, 1, 1, 255]]], dtype=torch.uint8)},
    }
    _, metrics = evaluate([sample], ("a", "b"))
    assert metrics == {"aAcc": 75.0, "mIoU": 58.33, "mAcc": 83.33}
    assert isinstance(metrics["mIoU"], float)
    json.dumps(metrics)


@pytest.mark.parametrize("beta", [1, 2])
def test_matches_the_numpy_twin(beta):
    samples = make_samples()
    names = ["mIoU", "mDice", "mFscore"]
    _, metrics = evaluate(samples, iou_metrics=names, beta=beta)
    all_accuracy, scores = twin(samples, len(CLASSES), beta)
    order = ["aAcc", "mIoU", "mAcc", "mDice", "mFscore", "mPrecision", "mRecall"]
    assert list(metrics) == order
    assert metrics["aAcc"] == round(100 * float(all_accuracy), 2)
    for name, values in scores.items():
        assert metrics[f"m{name}"] == round(100 * float(np.nanmean(values)), 2), name
    assert math.isnan(scores["IoU"][4])  # the absent class was really absent


def test_a_class_predicted_but_absent_scores_zero():
    sample = {
        "pred_sem_seg": {"data": torch.tensor([[[0, 1]]])},
        "gt_sem_seg": {"data": torch.tensor([[[0, 0]]])},
    }
    _, metrics = evaluate([sample], ("a", "b", "c"))
    assert metrics["mIoU"] == 25.0
    _, metrics = evaluate([sample], ("a", "b", "c"), nan_to_num=-1)
    assert metrics["mIoU"] == round(100 * (0.5 + 0 - 1) / 3, 2)


def test_all_ignored_is_nan():
    sample = {
        "pred_sem_seg": {"data": torch.zeros(1, 2, 2, dtype=torch.int64)},
        "gt_sem_seg": {"data": torch.full((1, 2, 2), 255, dtype=torch.uint8)},
    }
    _, metrics = evaluate([sample], ("a", "b"))
    assert all(math.isnan(value) for value in metrics.values())


def test_counts_are_exact_beyond_float32():
    metric = IoUMetric()
    metric.dataset_meta = {"classes": ("a", "b")}
    metric.process(None, make_samples(1, num_classes=2))
    metric.results[0] += torch.tensor([[2**24, 0], [0, 2**24]])
    before = metric.results[0].clone()
    metric.process(None, make_samples(1, num_classes=2, seed=1))
    assert len(metric.results) == 1
    added = (metric.results[0] - before).sum().item()
    valid = make_samples(1, num_classes=2, seed=1)[0]["gt_sem_seg"]["data"] != 255
    assert added == valid.sum().item()


def test_second_evaluation_starts_afresh():
    samples = make_samples()
    metric, first = evaluate(samples)
    metric.process(None, samples)
    assert metric.evaluate(len(samples)) == first
    with pytest.warns(UserWarning, match="nothing to evaluate"):
        assert metric.evaluate(3) == {}


def test_table_names_classes_scores_and_pixels():
    samples = make_samples()
    metric, metrics = evaluate(samples, iou_metrics=["mIoU", "mDice"])
    lines = metric.last_table.splitlines()
    assert lines[0].split() == ["class", "IoU", "Acc", "Dice", "pixels"]
    assert [line.split()[0] for line in lines[2:7]] == list(CLASSES)
    assert lines[6].split() == ["nobody", "nan", "nan", "nan", "0"]
    assert lines[-1].split()[:2] == ["mean", f"{metrics['mIoU']:.2f}"]
    valid = sum(int((s["gt_sem_seg"]["data"] != 255).sum()) for s in samples)
    assert lines[-1].split()[-1] == f"{valid:,}"
    assert len({len(line) for line in lines}) == 1


def test_predictions_are_written(tmp_path):
    samples = make_samples(2, reduce_zero_label=True) + make_samples(3)[2:]
    out = tmp_path / "a" / "b"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, metrics = evaluate(samples, output_dir=out, format_only=True)
    assert metrics == {}
    assert sorted(path.name for path in out.iterdir()) == [f"image_{i}.png" for i in range(3)]
    for sample, plus in zip(samples, (1, 1, 0), strict=True):
        name = sample["img_path"].split("/")[1].replace("jpg", "png")
        stored = np.array(Image.open(out / name))
        assert stored.dtype == np.uint8
        assert (stored == sample["pred_sem_seg"]["data"][0].numpy() + plus).all()
    _, metrics = evaluate(samples, output_dir=out)
    assert "mIoU" in metrics


def test_rejections():
    with pytest.raises(ConfigError, match=r"^iou_metrics: unknown metric 'IoU'.*mIoU"):
        IoUMetric(iou_metrics="IoU")
    with pytest.raises(ConfigError, match=r"^output_dir: "):
        IoUMetric(format_only=True)
    with pytest.raises(UserError, match="names no classes"):
        IoUMetric().process(None, make_samples(1))
    bad = make_samples(1)
    bad[0]["gt_sem_seg"]["data"][0, 0, 0] = 200
    with pytest.raises(LabelError, match=r"^folder/image_0\.jpg: .*200"):
        evaluate(bad)
    bad = make_samples(1)
    bad[0]["pred_sem_seg"]["data"][:] = 9
    with pytest.raises(LabelError, match=r"^folder/image_0\.jpg: .*prediction.* 9 "):
        evaluate(bad)


_WORKER = """
import sys, json, torch.distributed as dist
sys.path.insert(0, {tests!r})
from test_iou import CLASSES, make_samples
from segfast.evaluation import Evaluator
rank, path = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + path, rank=rank, world_size=2)
evaluator = Evaluator(dict(type="IoUMetric"))
evaluator.dataset_meta = dict(classes=CLASSES)
samples = make_samples(5)
for index in [[0, 2, 4], [1, 3, 0]][rank]:  # the sampler repeats sample 0 to fill the last round
    evaluator.process([samples[index]])
print(json.dumps(evaluator.evaluate(5)))
"""


def test_repeats_of_the_distributed_sampler_are_dropped(tmp_path):
    code = _WORKER.format(tests=str(__file__).rsplit("/", 1)[0])
    workers = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", code, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    evaluator = Evaluator(IoUMetric())
    evaluator.dataset_meta = {"classes": CLASSES}
    evaluator.process(make_samples(5))
    want = evaluator.evaluate(5)
    assert [json.loads(text.splitlines()[-1]) for text in outputs] == [want, want]


@pytest.mark.cuda
def test_cuda_counts_without_waiting():
    samples = make_samples(device="cuda")
    metric = IoUMetric()
    metric.dataset_meta = {"classes": CLASSES}
    metric.process(None, samples)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.process(None, samples)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert metric.results[0].is_cuda
    assert metric.evaluate(6) == evaluate(make_samples())[1]


def test_arguments_of_every_metric_and_misspelt_ones():
    METRICS.build({"type": "IoUMetric", "collect_device": "cpu", "collect_dir": "somewhere"})
    with pytest.raises(ValueError, match="collect_dir could only be used with"):
        IoUMetric(collect_device="gpu", collect_dir="somewhere")
    with pytest.raises(ConfigError, match=r"^iou_metric: .*did you mean iou_metrics"):
        METRICS.build({"type": "IoUMetric", "iou_metric": "mIoU"})
