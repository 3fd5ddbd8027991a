"""LoggerHook: lines of the log, records of the metrics."""

# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Mapping
from typing import Any

import torch

from segfast.distributed import mean_of_all
from segfast.ops import check_labels
from segfast.registry import HOOKS
from segfast.runner.faults import Faults, is_skipping
from segfast.runner.hooks import Hook
from segfast.runner.log import duration
from segfast.runner.message_hub import only_numbers
from segfast.runner.optim_dict import base_lr

_NOT_IN_LINE = ("mode", "iter", "epoch", "step", "lr")


@HOOKS.register_module()
class LoggerHook(Hook):
    """Every `interval` iterations: one transfer of the averaged losses, one line, one check for bad labels and NaN.

    Args:
        interval: iterations between lines; the last iteration always has one.
        window_size: average over the newest iterations only; None for all since the last line.
        num_digits: after the point.
        by_epoch: lines count epochs, `Epoch(train) [2][10/40]`; None: as the training loop does.
        unused: options of MMEngine's LoggerHook and LogProcessor that mean nothing here (log_metric_by_epoch, out_dir,
            ignore_last, ...); they may stay in a config.
    """

    priority = "BELOW_NORMAL"

    def __init__(
        self,
        interval: int = 10,
        window_size: int | None = None,
        num_digits: int = 4,
        by_epoch: bool | None = None,
        **unused: Any,
    ) -> None:
        """Check the interval, and that nothing is misspelt."""
        if interval < 1:
            raise ValueError(f"expected interval >= 1, got {interval}")
        for name in unused:
            if name not in UNUSED:
                raise TypeError(
                    f"{type(self).__name__} got an unexpected keyword argument '{name}'"
                )
        self.faults = Faults()
        self.interval, self.window_size = interval, window_size
        self.num_digits, self.by_epoch = num_digits, by_epoch

    def before_train(self, runner: Any) -> None:
        """Start the progress bar."""
        runner.log.start_bar(runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Speak at the interval and at the end."""
        step = runner.iter + 1
        if step % self.interval and step != runner.max_iters:
            runner.log.advance_bar()
            return
        if runner.optim_wrapper.grad_norm is not None:
            runner.message_hub.update_scalar("train/grad_norm", runner.optim_wrapper.grad_norm)
        losses = self._losses(runner)
        skipping = is_skipping(runner.optim_wrapper)
        means = mean_of_all(runner.message_hub.take("train/", self.window_size, finite=skipping))
        timing = runner.timer.take()
        if skipping or self.window_size or not math.isfinite(means.get("loss", 0.0)):
            self.faults.check(runner, losses)
        check_labels()
        self.faults.collect(runner)
        self._write(runner, batch_idx, means, timing)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Never save weights that a loss since the last line has spoilt; keep the counts."""
        if "nonfinite" not in checkpoint and not is_skipping(runner.optim_wrapper):
            self.faults.check(runner, self._losses(runner))
        self.faults.collect(runner)
        checkpoint["faults"] = self.faults.state_dict(runner)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """A resumed run goes on counting."""
        if runner.resume:
            self.faults.load_state_dict(runner, checkpoint.get("faults", {}))

    def after_train(self, runner: Any) -> None:
        """What went wrong in all."""
        self.faults.collect(runner)
        self.faults.tell_totals(runner)

    def after_val_epoch(self, runner: Any, metrics: Mapping | None = None) -> None:
        """The per-class table and the metrics."""
        self._write_metrics(runner, "val", metrics or {}, runner.val_loop)

    def after_test_epoch(self, runner: Any, metrics: Mapping | None = None) -> None:
        """The per-class table and the metrics."""
        self._write_metrics(runner, "test", metrics or {}, runner.test_loop)

    def _losses(self, runner: Any) -> list[Any]:
        """The losses since the last line, one an iteration; on their device."""
        scalar = runner.message_hub.scalars.get("train/loss")
        return list(scalar.values) if scalar is not None else []

    def _write(self, runner: Any, batch_idx: int, means: dict, timing: dict[str, float]) -> None:
        """The line of one interval."""
        step, lr = runner.iter + 1, base_lr(runner.optim_wrapper)
        eta = duration((runner.max_iters - step) * timing["time"])
        record = {
            "mode": "train",
            "iter": step,
            "epoch": runner.epoch,
            "step": step,
            "lr": lr,
            **timing,
        }
        if runner.device.type == "cuda":
            record["memory"] = torch.cuda.max_memory_allocated(runner.device) >> 20
        record |= means | self.faults.record(runner)
        self._record(runner, record)
        place = f"Iter(train) [{step:>{len(str(runner.max_iters))}}/{runner.max_iters}]"
        by_epoch = runner.train_loop.by_epoch if self.by_epoch is None else self.by_epoch
        if by_epoch:
            length = len(runner.train_loop.dataloader)
            inner = batch_idx % length + 1
            place = f"Epoch(train) [{runner.epoch + 1}][{inner:>{len(str(length))}}/{length}]"
        line = [place, f"lr: {lr:.4e}", f"eta: {eta}", *self._values(record)]
        runner.log.file_only("  ".join(line))
        loss = f"{means.get('loss', float('nan')):.4f}"
        times = {name: f"{timing[name]:.3f}" for name in ("time", "data_time")}
        runner.log.advance_bar({"loss": loss, "lr": f"{lr:.2e}", "eta": eta, **times})

    def _write_metrics(self, runner: Any, mode: str, metrics: Mapping, loop: Any) -> None:
        """Tables of metrics that have one, and the line."""
        for metric in loop.evaluator.metrics:
            if getattr(metric, "last_table", None):
                runner.log.info(metric.last_table)
        values = only_numbers(metrics)
        step = runner.epoch if getattr(runner.train_loop, "by_epoch", False) else runner.iter
        record = {"mode": mode, "iter": runner.iter, "epoch": runner.epoch, "step": step, **values}
        record |= runner.timer.evaluation
        self._record(runner, record)
        num_batches = len(loop.dataloader)
        counted = "Epoch" if getattr(runner.train_loop, "by_epoch", False) else "Iter"
        place = f"{counted}({mode}) [{num_batches}/{num_batches}]"
        if runner.train_loop is not None:
            place += f"  after {counted.lower()} {step}"
        runner.log.info("  ".join([place, *self._values(record)]))

    def _values(self, record: Mapping[str, Any]) -> list[str]:
        """`name: value` of everything that is no place."""
        return [
            f"{key}: {value:.{self.num_digits}f}" if isinstance(value, float) else f"{key}: {value}"
            for key, value in record.items()
            if key not in _NOT_IN_LINE
        ]

    def _record(self, runner: Any, record: dict[str, Any]) -> None:
        """To the file, and to the visualizer if it takes scalars."""
        runner.log.metrics(record)
        if hasattr(runner.visualizer, "add_scalars"):
            prefix = "" if record["mode"] == "train" else f"{record['mode']}/"
            numbers = {
                f"{prefix}{key}": value
                for key, value in record.items()
                if key not in ("mode", "iter", "epoch", "step")
            }
            runner.visualizer.add_scalars(numbers, step=record["step"])


UNUSED = {
    "ignore_last", "interval_exp_name", "out_dir", "out_suffix", "keep_local", "file_client_args",
    "log_metric_by_epoch", "backend_args", "custom_cfg", "log_with_hierarchy", "mean_pattern",
}  # fmt: skip
