"""EarlyStoppingHook: end training when a metric stops improving."""

# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Mapping
from typing import Any

from segfast.errors import ConfigError
from segfast.registry import HOOKS, did_you_mean
from segfast.runner.better import better_rule
from segfast.runner.hooks import Hook


@HOOKS.register_module()
class EarlyStoppingHook(Hook):
    """Stops after `patience` validations in a row that did not improve the best by `min_delta`.

    Args:
        monitor: a key of the metrics.
        rule: "greater" or "less" is better; None infers it from the name.
        min_delta: what counts as an improvement, in the metric's own units.
        strict: a missing metric is an error, not a warning.
        check_finite: stop at once when the metric is NaN or infinite.
        patience: validations.
        stopping_threshold: stop as soon as the metric is better than that.
    """

    priority = "LOWEST"  # the checkpoint of this validation is written first

    def __init__(
        self,
        monitor: str,
        rule: str | None = None,
        min_delta: float = 0.1,
        strict: bool = False,
        check_finite: bool = True,
        patience: int = 5,
        stopping_threshold: float | None = None,
    ) -> None:
        """Check the rule."""
        self.monitor, self.rule = monitor, better_rule(monitor, rule)
        self.min_delta, self.strict, self.check_finite = abs(min_delta), strict, check_finite
        self.patience, self.stopping_threshold = patience, stopping_threshold
        self.wait_count = 0
        self.best_score = -math.inf if self.rule == "greater" else math.inf

    def after_val_epoch(self, runner: Any, metrics: Mapping | None = None) -> None:
        """Decide; the loop ends before its next iteration."""
        metrics = metrics or {}
        if runner.train_loop is None:
            return
        if self.monitor not in metrics:
            hint = did_you_mean(self.monitor, metrics)
            problem = f"no metric {self.monitor!r}, there are {', '.join(metrics)}{hint}"
            if self.strict:
                raise ConfigError("custom_hooks.EarlyStoppingHook.monitor", problem)
            runner.log.warning(f"early stopping: {problem}")
            return
        self._stop(runner, self._take(float(metrics[self.monitor])))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """A resumed run waits no longer than this one would have."""
        state = {"wait_count": self.wait_count, "best_score": self.best_score}
        checkpoint.setdefault("early_stopping", {})[self._name(runner)] = state

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Take over how long it has waited; a run that it has stopped stays stopped."""
        state = checkpoint.get("early_stopping", {}).get(self._name(runner))
        if not runner.resume or not state or runner.train_loop is None:
            return
        self.wait_count, self.best_score = state["wait_count"], state["best_score"]
        self._stop(runner, self._reason())

    def _name(self, runner: Any) -> str:
        """Of this hook in a checkpoint: several may watch one metric."""
        alike = [
            hook
            for hook in runner.hooks
            if isinstance(hook, EarlyStoppingHook) and hook.monitor == self.monitor
        ]
        return f"{self.monitor} {alike.index(self)}"

    def _stop(self, runner: Any, reason: str) -> None:
        if reason:
            runner.log.info(f"training stops early: {reason}")
            runner.train_loop.stop_training = True

    def _take(self, score: float) -> str:
        """One more score; why training should end then, empty where it should not."""
        sign = 1 if self.rule == "greater" else -1
        if self.check_finite and not math.isfinite(score):
            return f"{self.monitor} is {score}"
        if self._is_enough(score):
            self.best_score = score
        elif sign * score >= sign * self.best_score + self.min_delta:
            self.best_score, self.wait_count = score, 0
        else:
            self.wait_count += 1
        return self._reason()

    def _is_enough(self, score: float) -> bool:
        threshold = self.stopping_threshold
        return threshold is not None and (
            score > threshold if self.rule == "greater" else score < threshold
        )

    def _reason(self) -> str:
        """Why training should end; empty where it should not."""
        best, threshold = self.best_score, self.stopping_threshold
        if math.isfinite(best) and self._is_enough(best):
            return f"{self.monitor} is {best:.4g}, {self.rule} than {threshold}"
        if self.wait_count < self.patience:
            return ""
        return f"{self.monitor} has not improved on {best:.4g} in {self.wait_count} validations"
