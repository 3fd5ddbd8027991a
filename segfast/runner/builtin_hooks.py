"""The small hooks that every run has: timer, sampler seed, what happens now, schedulers."""

# SPDX-License-Identifier: Apache-2.0

import time
from typing import Any

from segfast.registry import HOOKS
from segfast.runner.hooks import Hook
from segfast.runner.message_hub import MessageHub, only_numbers


@HOOKS.register_module()
class RuntimeInfoHook(Hook):
    """Tells the message hub what the iteration gave; tensors stay on their device, nobody waits for them."""

    priority = "VERY_HIGH"

    def before_train(self, runner: Any) -> None:
        """How long training will be, and the learning rates, for whoever asks."""
        for name in ("iter", "epoch", "max_iters", "max_epochs"):
            runner.message_hub.update_info(name, getattr(runner, name))
        wrapper = runner.optim_wrapper
        for name in wrapper.get_lr():
            runner.message_hub.follow(f"train/{name}", lambda n=name: wrapper.get_lr()[n][0])

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Where training is."""
        facts = runner.message_hub.runtime_info
        facts["iter"], facts["epoch"] = runner.iter, runner.epoch

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """The losses and whatever else the model returned."""
        for name, value in (outputs or {}).items():
            runner.message_hub.update_scalar(f"train/{name}", value)

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """The metrics, as `val/mIoU` and so on."""
        self._tell(runner.message_hub, "val", metrics or {})

    def after_test_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """The metrics, as `test/mIoU` and so on."""
        self._tell(runner.message_hub, "test", metrics or {})

    def _tell(self, hub: MessageHub, mode: str, metrics: dict) -> None:
        """Numbers become scalars, everything else facts."""
        numbers = only_numbers(metrics)
        for name, value in metrics.items():
            if name in numbers:
                hub.update_scalar(f"{mode}/{name}", numbers[name])
            else:
                hub.update_info(f"{mode}/{name}", value)


@HOOKS.register_module()
class IterTimerHook(Hook):
    """Wall-clock seconds per iteration: `time` in all, `data_time` waiting for the batch.

    The time of a validation, or a test, ends behind its evaluation, which waits for the device.
    """

    def __init__(self) -> None:
        """Start with empty sums."""
        self.sums = {"time": 0.0, "data_time": 0.0}
        self.count = 0
        self._mark = time.perf_counter()
        self.evaluation: dict[str, float] = {}  # the means of the latest validation or test
        self._waited, self._num_batches, self._began = 0.0, 0, 0.0

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

    def before_val_epoch(self, runner: Any) -> None:
        """Start the clock of a validation."""
        self._waited, self._num_batches = 0.0, 0
        self._began = self._evaluation_mark = time.perf_counter()

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """The batch is there."""
        self._waited += time.perf_counter() - self._evaluation_mark

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """The prediction is queued."""
        self._num_batches += 1
        self._evaluation_mark = time.perf_counter()

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Means, for the log's line."""
        spent, num_batches = time.perf_counter() - self._began, max(self._num_batches, 1)
        self.evaluation = {"data_time": self._waited / num_batches, "time": spent / num_batches}

    before_test_epoch, before_test_iter = before_val_epoch, before_val_iter
    after_test_iter, after_test_epoch = after_val_iter, after_val_epoch

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
        """Call `set_epoch` where the sampler, or the one inside the batch sampler, has it."""
        loader = runner.train_loop.dataloader
        batches = getattr(loader, "batch_sampler", None)
        for sampler in (getattr(loader, "sampler", None), getattr(batches, "sampler", None)):
            if sampler is not None and hasattr(sampler, "set_epoch"):
                sampler.set_epoch(runner.epoch)


@HOOKS.register_module()
class ParamSchedulerHook(Hook):
    """Steps the schedulers: by iteration or by epoch, as each says."""

    priority = "LOW"

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Step those that count iterations."""
        for scheduler in runner.param_schedulers:
            if not scheduler.by_epoch and not getattr(scheduler, "need_val_args", False):
                scheduler.step()

    def after_train_epoch(self, runner: Any) -> None:
        """Step those that count epochs."""
        for scheduler in runner.param_schedulers:
            if scheduler.by_epoch and not getattr(scheduler, "need_val_args", False):
                scheduler.step()

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Step those that watch a metric."""
        for scheduler in runner.param_schedulers:
            if getattr(scheduler, "need_val_args", False):
                scheduler.step(metrics)
