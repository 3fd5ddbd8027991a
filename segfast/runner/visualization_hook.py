"""SegVisualizationHook: a picture of a few validation samples."""

# SPDX-License-Identifier: Apache-2.0

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from segfast.datasets.images import read_picture
from segfast.distributed import is_first
from segfast.registry import HOOKS, VISUALIZERS
from segfast.runner.hooks import Hook
from segfast.structures import BaseDataElement
from segfast.visualization.visualizer import to_rgb


@HOOKS.register_module()
class SegVisualizationHook(Hook):
    """Draws a few validation samples, spread over the data: image, truth, prediction, errors.

    Where it is told to draw, it also hands the samples of every `interval`-th batch of a validation or
    test to the visualizer, as MMSegmentation does: `add_datasample(f"{mode}_{file name}", image (H, W, 3)
    uint8 RGB, data_sample=..., show=..., wait_time=..., step=iteration)`.

    Args:
        draw: False draws nothing, None only the picture of a few samples, True samples as well.
        interval: in batches.
        show: as `add_datasample` takes it.
        wait_time: as `add_datasample` takes it, in seconds.
        backend_args: kept for MMEngine's configs.
        num_samples: rows of the picture.
    """

    def __init__(
        self,
        draw: bool | None = None,
        interval: int = 50,
        show: bool = False,
        wait_time: float = 0.0,
        backend_args: dict | None = None,
        *,
        num_samples: int = 4,
    ) -> None:
        """Take the settings."""
        self.draw, self.interval, self.num_samples = draw, interval, num_samples
        self.show, self.wait_time, self.backend_args = show, wait_time, backend_args
        self._rows: list = []

    def before_val_epoch(self, runner: Any) -> None:
        """Forget the last picture."""
        self._rows = []

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Keep samples of evenly spaced batches: neighbouring files are often nearly the same."""
        self._hand_over(runner, batch_idx, data_batch, outputs, "val")
        num_batches = len(runner.val_loop.dataloader)
        due = batch_idx % max(1, num_batches // self.num_samples) == 0
        if (
            self.draw is not False
            and is_first()
            and due
            and len(self._rows) < self.num_samples
            and isinstance(data_batch, dict)
        ):
            room = min(-(-self.num_samples // num_batches), self.num_samples - len(self._rows))
            pairs = zip(data_batch.get("inputs", []), outputs, strict=False)
            self._rows += [
                (image, sample.cpu())
                for image, sample in list(pairs)[:room]
                if "pred_sem_seg" in sample
            ]

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Hand samples to the visualizer."""
        self._hand_over(runner, batch_idx, data_batch, outputs, "test")

    def _hand_over(
        self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any, mode: str
    ) -> None:
        """Samples to the visualizer, where that is asked for."""
        visualizer = runner.visualizer
        due = self.draw is True and self.every_n_inner_iters(batch_idx, self.interval)
        if not due or not is_first() or not hasattr(visualizer, "add_datasample"):
            return
        visualizer.dataset_meta = getattr(runner, f"{mode}_loop").dataset_meta
        inputs = data_batch.get("inputs", []) if isinstance(data_batch, dict) else []
        for image, sample in itertools.zip_longest(inputs, outputs):
            picture = _picture(image, sample) if isinstance(sample, BaseDataElement) else None
            if picture is None:
                continue
            path = sample.metainfo.get("img_path") or str(batch_idx)
            visualizer.add_datasample(
                f"{mode}_{os.path.basename(path)}",
                picture,
                data_sample=sample,
                show=self.show,
                wait_time=self.wait_time,
                step=runner.iter,
            )

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Write `pictures/val_iter_N.png`."""
        if self.draw is False or not self._rows:
            return
        visualizer = runner.visualizer
        if not hasattr(visualizer, "draw_grid"):  # none, or one for other pictures
            visualizer = VISUALIZERS.build({"type": "SegLocalVisualizer"})
        visualizer.dataset_meta = runner.val_loop.dataset_meta
        path = Path(runner.work_dir) / "pictures" / f"val_iter_{runner.iter}.png"
        picture = visualizer.draw_grid(self._rows, path)
        if hasattr(visualizer, "add_image"):
            visualizer.add_image("validation", picture, runner.iter)
        self._rows = []


def _picture(image: Any, sample: BaseDataElement) -> np.ndarray | None:
    """The sample's image (H, W, 3) uint8 RGB: its file, or, of another size or none, the batch's; or None."""
    size = getattr(sample.get("pred_sem_seg"), "shape", None)
    path = sample.metainfo.get("img_path")
    if isinstance(path, str) and os.path.isfile(path):
        picture = read_picture(path)
        if size in (None, picture.shape[:2]):
            return picture
    if not isinstance(image, Tensor) or image.ndim != 3:
        return None
    return to_rgb(image, size or image.shape[-2:])
