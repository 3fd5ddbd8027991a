"""SegVisualizationHook: a picture of a few validation samples."""

# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Any

from segfast.distributed import is_first
from segfast.registry import HOOKS, VISUALIZERS
from segfast.runner.hooks import Hook


@HOOKS.register_module()
class SegVisualizationHook(Hook):
    """Draws a few validation samples, spread over the data: image, truth, prediction, errors.

    Args:
        draw: whether to draw at all.
        num_samples: rows of the picture.
        interval, show, wait_time, backend_args: of MMSegmentation's hook, which draws single samples; they may stay.
    """

    def __init__(
        self,
        draw: bool = True,
        num_samples: int = 4,
        interval: int = 50,
        show: bool = False,
        wait_time: float = 0.0,
        backend_args: dict | None = None,
    ) -> None:
        """Take the settings."""
        self.draw, self.num_samples = draw, num_samples
        self._rows: list = []

    def before_val_epoch(self, runner: Any) -> None:
        """Forget the last picture."""
        self._rows = []

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Keep samples of evenly spaced batches: neighbouring files are often nearly the same."""
        num_batches = len(runner.val_loop.dataloader)
        due = batch_idx % max(1, num_batches // self.num_samples) == 0
        if (
            self.draw
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

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Write `pictures/val_iter_N.png`."""
        if not self.draw or not self._rows:
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
