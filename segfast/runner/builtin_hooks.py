"""The hooks every run has: timer, sampler seed, logger, schedulers, pictures. Checkpoints have a file of their own."""

# SPDX-License-Identifier: Apache-2.0

import math
import time
from pathlib import Path
from typing import Any

import torch

from segfast.errors import UserError
from segfast.ops import check_labels
from segfast.registry import HOOKS, VISUALIZERS
from segfast.runner.hooks import Hook
from segfast.runner.log import duration
from segfast.runner.optim import base_lr


@HOOKS.register_module()
class IterTimerHook(Hook):
    """Wall-clock seconds per iteration: `time` in all, `data_time` waiting for the batch."""

    def __init__(self) -> None:
        """Start with empty sums."""
        self.sums = {"time": 0.0, "data_time": 0.0}
        self.count = 0
        self._mark = time.perf_counter()

    def before_train_epoch(self, runner: Any) -> None:
        """Restart the clock: what lies between epochs is no iteration."""
        self._mark = time.perf_counter()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """The batch is there."""
        self.sums["data_time"] += time.perf_counter() - self._mark

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """The step is queued; it is done at log intervals, where the logger waits for the device."""
        now = time.perf_counter()
        self.sums["time"] += now - self._mark
        self.count += 1
        self._mark = now

    def after_val(self, runner: Any) -> None:
        """Validation is no iteration either."""
        self._mark = time.perf_counter()

    def take(self) -> dict[str, float]:
        """Means since the last call."""
        means = {key: value / max(self.count, 1) for key, value in self.sums.items()}
        self.sums = dict.fromkeys(self.sums, 0.0)
        self.count = 0
        return means


@HOOKS.register_module()
class DistSamplerSeedHook(Hook):
    """Tells the sampler which epoch begins."""

    def before_train_epoch(self, runner: Any) -> None:
        """Call `set_epoch` where the sampler has it."""
        sampler = getattr(runner.train_loop.dataloader, "sampler", None)
        if sampler is not None and hasattr(sampler, "set_epoch"):
            sampler.set_epoch(runner.epoch)


@HOOKS.register_module()
class LoggerHook(Hook):
    """Every `interval` iterations: one transfer of the averaged losses, one line, one check for bad labels and NaN.

    Args:
        interval: iterations between lines.
    """

    priority = "BELOW_NORMAL"

    def __init__(self, interval: int = 10) -> None:
        """Take the interval."""
        if interval < 1:
            raise ValueError(f"expected interval >= 1, got {interval}")
        self.interval = interval
        self._values: dict[str, list[torch.Tensor]] = {}
        self._count = 0

    def before_train(self, runner: Any) -> None:
        """Start the progress bar."""
        runner.log.start_bar(runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Keep the values, on the device; speak at the interval and at the end."""
        for key, value in (outputs or {}).items():
            value = value.detach() if isinstance(value, torch.Tensor) else torch.as_tensor(value)
            self._values.setdefault(key, []).append(value)
        self._count += 1
        if not (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            runner.log.advance_bar()
            return
        means = self._take()
        timing = runner.timer.take()
        if not math.isfinite(means.get("loss", 0.0)):
            raise UserError(
                f"the loss became {means['loss']} in the {self.interval} iterations up to {runner.iter + 1} (hint: "
                "lower optim_wrapper.optimizer.lr, or set optim_wrapper.clip_grad=dict(max_norm=1.0))"
            )
        check_labels()
        self._write(runner, means, timing)

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """The per-class table and the metrics."""
        self._write_metrics(runner, "val", metrics or {}, runner.val_loop.evaluator)

    def after_test_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """The per-class table and the metrics."""
        self._write_metrics(runner, "test", metrics or {}, runner.test_loop.evaluator)

    def _take(self) -> dict[str, float]:
        """Means since the last line: one transfer."""
        sums = [torch.stack(values).sum(dtype=torch.float32) for values in self._values.values()]
        totals = torch.stack(sums).tolist() if sums else []
        means = {key: total / self._count for key, total in zip(self._values, totals, strict=True)}
        self._values, self._count = {}, 0
        return means

    def _write(self, runner: Any, means: dict[str, float], timing: dict[str, float]) -> None:
        step = runner.iter + 1
        eta = (runner.max_iters - step) * timing["time"]
        lr = base_lr(runner.optim_wrapper)
        record = {"mode": "train", "iter": step, "epoch": runner.epoch, "lr": lr, **timing, **means}
        if runner.optim_wrapper.grad_norm is not None:
            record["grad_norm"] = float(runner.optim_wrapper.grad_norm)
        if runner.device.type == "cuda":
            record["memory"] = torch.cuda.max_memory_allocated(runner.device) >> 20
        runner.log.metrics(record)
        parts = [
            f"Iter(train) [{step}/{runner.max_iters}]",
            f"lr: {lr:.4e}",
            f"eta: {duration(eta)}",
        ]
        parts += [
            f"{key}: {value:.4f}"
            for key, value in record.items()
            if key not in ("mode", "iter", "epoch", "lr")
        ]
        runner.log.file_only("  ".join(parts))
        runner.log.advance_bar(
            {
                "loss": f"{means.get('loss', float('nan')):.4f}",
                "lr": f"{lr:.2e}",
                "eta": duration(eta),
                "time": f"{timing['time']:.3f}",
                "data_time": f"{timing['data_time']:.3f}",
            }
        )

    @staticmethod
    def _write_metrics(runner: Any, mode: str, metrics: dict, evaluator: Any) -> None:
        for metric in evaluator.metrics:
            if getattr(metric, "last_table", None):
                runner.log.info(metric.last_table)
        values = {key: float(value) for key, value in metrics.items()}
        runner.log.metrics({"mode": mode, "iter": runner.iter, **values})
        text = "  ".join(f"{key}: {value:.2f}" for key, value in values.items())
        runner.log.info(f"Iter({mode}) [{runner.iter}/{runner.max_iters}]  {text}")


@HOOKS.register_module()
class ParamSchedulerHook(Hook):
    """Steps the schedulers: by iteration or by epoch, as each says."""

    priority = "LOW"

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Step those that count iterations."""
        for scheduler in runner.param_schedulers:
            if not scheduler.by_epoch:
                scheduler.step()

    def after_train_epoch(self, runner: Any) -> None:
        """Step those that count epochs."""
        for scheduler in runner.param_schedulers:
            if scheduler.by_epoch:
                scheduler.step()


@HOOKS.register_module()
class SegVisualizationHook(Hook):
    """Draws a few validation samples, spread over the data: image, truth, prediction, errors.

    Args:
        draw: whether to draw at all.
        num_samples: rows of the picture.
    """

    def __init__(self, draw: bool = True, num_samples: int = 4) -> None:
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
        visualizer = runner.visualizer or VISUALIZERS.build({"type": "SegLocalVisualizer"})
        visualizer.dataset_meta = runner.val_loop.dataset_meta
        path = Path(runner.work_dir) / "pictures" / f"val_iter_{runner.iter}.png"
        visualizer.draw_grid(self._rows, path)
        self._rows = []
