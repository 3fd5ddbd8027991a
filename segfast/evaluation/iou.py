"""IoUMetric: one exact (C, C) count matrix on the device, and every score read off it at the end.

Math, with I, P, L the pixels per class that are right, predicted and labelled (counts over the whole
data set; ignored pixels leave all three): IoU = I / (P + L - I), Acc = I / L, Dice = 2 I / (P + L),
Precision = I / P, Recall = I / L, F = (1 + b^2) Precision Recall / (b^2 Precision + Recall),
aAcc = sum I / sum L. 0/0 is NaN and leaves the mean: a class that is neither labelled nor predicted
does not count; one that is predicted only scores 0.
"""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from segfast import ops
from segfast.distributed import world
from segfast.distributed.world import reduce_device
from segfast.errors import ConfigError, LabelError, UserError
from segfast.evaluation.metric import BaseMetric, check_shares
from segfast.paths import being_written, inside
from segfast.registry import METRICS

_SCORES = {
    "mIoU": ("IoU", "Acc"),
    "mDice": ("Dice", "Acc"),
    "mFscore": ("Fscore", "Precision", "Recall"),
}


@METRICS.register_module()
class IoUMetric(BaseMetric):
    """Intersection over union, and its relatives, over a data set.

    Args:
        ignore_index: label that is left out.
        iou_metrics: of "mIoU", "mDice", "mFscore"; one name or several.
        nan_to_num: replaces NaN scores (as fractions) before the mean.
        beta: weight of recall in the F-score.
        collect_device: see `BaseMetric`.
        output_dir: write each prediction there as `<image's stem>.png`, uint8, plus 1 where the data
            set has `reduce_zero_label`.
        format_only: only write, do not evaluate (for test sets without labels).
        prefix: put before every name, `prefix/mIoU`.
        collect_dir: see `BaseMetric`.

    Attributes:
        last_table: the latest evaluation as text, one line per class.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        iou_metrics: str | Sequence[str] = ("mIoU",),
        nan_to_num: float | None = None,
        beta: float = 1,
        collect_device: str = "cpu",
        output_dir: str | Path | None = None,
        format_only: bool = False,
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        """Check the settings; make `output_dir`."""
        super().__init__(collect_device, prefix, collect_dir)
        names = [iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics)
        for name in names:
            if name not in _SCORES:
                known = ", ".join(_SCORES)
                raise ConfigError("iou_metrics", f"unknown metric {name!r} (known: {known})")
        if format_only and output_dir is None:
            raise ConfigError("output_dir", "missing, format_only=True writes predictions there")
        self.ignore_index = ignore_index
        self.metrics = names
        self.nan_to_num = nan_to_num
        self.beta = beta
        self.format_only = format_only
        self.output_dir = None if output_dir is None else Path(output_dir)
        if self.output_dir is not None:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        self._written: dict[str, str] = {}  # file name -> the image that it belongs to
        self.last_table = ""
        self._counted = 0  # samples, where there are several processes

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count one batch, without waiting for the device.

        A single process adds to one matrix. Several keep that of their last sample apart: whether it is one of the
        sampler's repeats is known at the end only.

        Args:
            data_batch: not used.
            data_samples: dicts with `pred_sem_seg` and `gt_sem_seg`, each with `data` (1, H, W).

        Raises:
            LabelError: on the CPU, a label or prediction out of range; names the image.
        """
        for sample in data_samples:
            pred = sample["pred_sem_seg"]["data"].squeeze(0)
            if self.format_only:
                self.results.append(None)
            else:
                self._count(pred, sample)
            if self.output_dir is not None:
                self._write(pred, sample)

    def _count(self, pred: Tensor, sample: dict) -> None:
        label = sample["gt_sem_seg"]["data"].squeeze(0).to(pred.device)
        if pred.dtype.is_floating_point:
            pred = pred.long()  # thresholded one-channel outputs of other models
        num_classes = len(self._classes())
        several = world()[1] > 1
        if several:
            self._counted += 1
            if len(self.results) == 2:
                last = self.results.pop()
                self.results[0] += last.to(self.results[0].device)
        counts = self.results[0] if self.results and not several else None
        if counts is not None and counts.device != pred.device:
            counts = self.results[0] = counts.to(pred.device)
        try:
            total = ops.confusion_matrix(
                pred, label, num_classes, ignore_index=self.ignore_index, out=counts
            )
        except LabelError as error:
            path = sample.get("seg_map_path") or sample.get("img_path")
            raise LabelError(f"{path}: {error}") if path else error from None
        if counts is None:
            self.results.append(total)

    def _write(self, pred: Tensor, sample: dict) -> None:
        assert self.output_dir is not None
        values = pred.cpu().numpy().astype(np.uint8)
        if sample.get("reduce_zero_label"):
            values = values + 1
        path = inside(self.output_dir, f"{Path(sample['img_path']).stem}.png")
        other = self._written.setdefault(path.name, str(sample["img_path"]))
        if other != str(sample["img_path"]):
            raise UserError(f"{other} and {sample['img_path']} would both be written as {path}")
        with being_written(path):
            Image.fromarray(values).save(path)

    def _classes(self) -> Sequence[str]:
        classes = (self.dataset_meta or {}).get("classes")
        if not classes:
            raise UserError(
                "IoUMetric: the data set names no classes (give the dataset metainfo=dict("
                "classes=...))"
            )
        return classes

    def collect(self, size: int) -> list:
        """One matrix: the sum over all processes, without the sampler's repeats."""
        rank, processes = world()
        if processes == 1 or self.format_only:
            return self.results
        num_classes = len(self._classes())
        place = reduce_device()
        total = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=place)
        counted, self._counted = self._counted, 0
        repeated = (counted - 1) * processes + rank >= size  # the last one
        for counts in self.results[:-1] if repeated else self.results:
            total += counts.to(place)
        entries = torch.tensor(counted, device=place)
        for number in (total, entries):
            dist.all_reduce(number)
        check_shares(int(entries), size)
        return [total]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Count matrices -> percent, rounded to two decimals.

        Args:
            results: (C, C) int64 each, row = label, column = prediction.

        Returns:
            "aAcc", then "m" + each score: "mIoU", "mAcc", ...; empty with `format_only`.
        """
        if self.format_only or not results:
            return {}
        counts = torch.stack(list(results)).sum(0).numpy()
        scores = self.scores(counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            all_accuracy = self._without_nan(counts.trace() / np.float64(counts.sum()))
        metrics = {"aAcc": _percent(all_accuracy)}
        metrics.update({f"m{name}": _percent(_nanmean(v)) for name, v in scores.items()})
        self.last_table = format_table(self._classes(), scores, counts.sum(1))
        return metrics

    def scores(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Scores per class as fractions, (C,) float64 each, in the order asked for.

        Args:
            counts: (C, C) int64, row = label, column = prediction.
        """
        inter = counts.diagonal().astype(np.float64)
        pred, label = counts.sum(0).astype(np.float64), counts.sum(1).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision, recall = inter / pred, inter / label
            square = self.beta**2
            known = {
                "IoU": inter / (pred + label - inter),
                "Acc": recall,
                "Dice": 2 * inter / (pred + label),
                "Fscore": (1 + square) * precision * recall / (square * precision + recall),
                "Precision": precision,
                "Recall": recall,
            }
        names = dict.fromkeys(name for metric in self.metrics for name in _SCORES[metric])
        return {name: self._without_nan(known[name]) for name in names}

    def _without_nan(self, fractions: Any) -> Any:
        """0/0 replaced as `nan_to_num` says."""
        if self.nan_to_num is None:
            return fractions
        return np.nan_to_num(fractions, nan=self.nan_to_num)


def _nanmean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def _percent(fraction: float) -> float:
    return round(100 * float(fraction), 2)


def format_table(
    classes: Sequence[str], scores: dict[str, np.ndarray], num_pixels: np.ndarray
) -> str:
    """Scores in percent and labelled pixels, one line per class, the means last."""
    header = ["class", *scores, "pixels"]
    rows = [
        [str(name), *(f"{100 * values[k]:.2f}" for values in scores.values()), f"{num_pixels[k]:,}"]
        for k, name in enumerate(classes)
    ]
    means = [f"{100 * _nanmean(values):.2f}" for values in scores.values()]
    summary = ["mean", *means, f"{num_pixels.sum():,}"]
    lines = [header, *rows, summary]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def draw(line: list[str]) -> str:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True)]
        return "  ".join(cells)

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([draw(header), rule, *map(draw, rows), rule, draw(summary)])
