"""Hooks: what happens around iterations, epochs and saves, and in which order.

A hook overrides the points it needs; `Runner.call_hook` calls every hook at a point, lowest priority number first,
equal ones in order of registration. Source: MMEngine's hook points and priorities.
"""

# SPDX-License-Identifier: Apache-2.0

from typing import Any

from segfast.registry import HOOKS

PRIORITIES = {
    "HIGHEST": 0, "VERY_HIGH": 10, "HIGH": 30, "ABOVE_NORMAL": 40, "NORMAL": 50, "BELOW_NORMAL": 60,
    "LOW": 70, "VERY_LOW": 90, "LOWEST": 100,
}  # fmt: skip

STAGES = (
    "before_run", "after_load_checkpoint", "before_train", "before_train_epoch", "before_train_iter",
    "after_train_iter", "after_train_epoch", "before_val", "before_val_epoch", "before_val_iter",
    "after_val_iter", "after_val_epoch", "after_val", "before_save_checkpoint", "after_train",
    "before_test", "before_test_epoch", "before_test_iter", "after_test_iter", "after_test_epoch",
    "after_test", "after_run",
)  # fmt: skip


@HOOKS.register_module()
class Hook:
    """Base of all hooks: every point does nothing, or the generic `_before_iter` and so on."""

    priority: str | int = "NORMAL"

    def before_run(self, runner: Any) -> None:
        """Everything is built, nothing has run."""

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """A checkpoint was read; the hook may take its own part."""

    def before_train(self, runner: Any) -> None:
        """The first iteration is about to run."""

    def before_train_epoch(self, runner: Any) -> None:
        """A training epoch begins."""
        self._before_epoch(runner, mode="train")

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """A batch was loaded."""
        self._before_iter(runner, batch_idx=batch_idx, data_batch=data_batch, mode="train")

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """`outputs`: the log_vars, tensors on the device."""
        self._after_iter(
            runner, batch_idx=batch_idx, data_batch=data_batch, outputs=outputs, mode="train"
        )

    def after_train_epoch(self, runner: Any) -> None:
        """A training epoch ended."""
        self._after_epoch(runner, mode="train")

    def before_val(self, runner: Any) -> None:
        """Validation begins."""

    def before_val_epoch(self, runner: Any) -> None:
        """Validation begins, after `before_val`."""
        self._before_epoch(runner, mode="val")

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """A validation batch was loaded."""
        self._before_iter(runner, batch_idx=batch_idx, data_batch=data_batch, mode="val")

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """`outputs`: the predicted samples."""
        self._after_iter(
            runner, batch_idx=batch_idx, data_batch=data_batch, outputs=outputs, mode="val"
        )

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Metrics are there."""
        self._after_epoch(runner, mode="val")

    def after_val(self, runner: Any) -> None:
        """Validation ended."""

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """The hook may add its own part."""

    def after_train(self, runner: Any) -> None:
        """The last iteration ran."""

    def before_test(self, runner: Any) -> None:
        """Testing begins."""

    def before_test_epoch(self, runner: Any) -> None:
        """Testing begins, after `before_test`."""
        self._before_epoch(runner, mode="test")

    def before_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """A test batch was loaded."""
        self._before_iter(runner, batch_idx=batch_idx, data_batch=data_batch, mode="test")

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """`outputs`: the predicted samples."""
        self._after_iter(
            runner, batch_idx=batch_idx, data_batch=data_batch, outputs=outputs, mode="test"
        )

    def after_test_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Metrics are there."""
        self._after_epoch(runner, mode="test")

    def after_test(self, runner: Any) -> None:
        """Testing ended."""

    def after_run(self, runner: Any) -> None:
        """Everything is done."""

    def _before_epoch(self, runner: Any, mode: str = "train") -> None:
        """Called by every `before_*_epoch` that is not overridden."""

    def _after_epoch(self, runner: Any, mode: str = "train") -> None:
        """Called by every `after_*_epoch` that is not overridden."""

    def _before_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, mode: str = "train"
    ) -> None:
        """Called by every `before_*_iter` that is not overridden."""

    def _after_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = "train",
    ) -> None:
        """Called by every `after_*_iter` that is not overridden."""

    def every_n_epochs(self, runner: Any, n: int, start: int = 0) -> bool:
        """Whether the epoch that just ended is `start` or a multiple of n behind it."""
        past = runner.epoch + 1 - start
        return n > 0 and past >= 0 and past % n == 0

    def every_n_inner_iters(self, batch_idx: int, n: int) -> bool:
        """Whether this batch of the epoch is a multiple of n."""
        return n > 0 and (batch_idx + 1) % n == 0

    def every_n_train_iters(self, runner: Any, n: int, start: int = 0) -> bool:
        """Whether the iteration that just ran is `start` or a multiple of n behind it."""
        past = runner.iter + 1 - start
        return n > 0 and past >= 0 and past % n == 0

    def end_of_epoch(self, dataloader: Any, batch_idx: int) -> bool:
        """Whether this batch is the dataloader's last."""
        return batch_idx + 1 == len(dataloader)

    def is_last_train_iter(self, runner: Any) -> bool:
        """Whether the iteration that just ran is the last."""
        return runner.iter + 1 == runner.max_iters

    def is_last_train_epoch(self, runner: Any) -> bool:
        """Whether the epoch that just ended is the last."""
        return runner.epoch + 1 == runner.max_epochs


def acts_at(hook: Hook, stage: str) -> bool:
    """Whether a hook does anything at a point: it overrides the point, or the generic one behind it."""
    when, *_, unit = stage.split("_")
    return any(
        getattr(getattr(hook, name, None), "__func__", None) is not getattr(Hook, name)
        for name in (stage, f"_{when}_{unit}")
        if hasattr(Hook, name)
    )


def priority_number(priority: str | int) -> int:
    """A priority's name or number as a number.

    Raises:
        ValueError: no such name, or a number outside 0 to 100.
    """
    number = PRIORITIES.get(priority.upper()) if isinstance(priority, str) else priority
    if number is None or not 0 <= number <= 100:
        names = ", ".join(PRIORITIES)
        raise ValueError(f"expected a priority from 0 to 100 or one of {names}, got {priority!r}")
    return int(number)
