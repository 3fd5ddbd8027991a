"""ReduceOnPlateauLR: less when a validation metric stops improving."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import lr_scheduler

from segfast.errors import ConfigError
from segfast.registry import PARAM_SCHEDULERS, did_you_mean
from segfast.runner.scheduler import ParamScheduler


@PARAM_SCHEDULERS.register_module(name=["ReduceOnPlateauLR", "ReduceOnPlateauParamScheduler"])
class ReduceOnPlateauLR(ParamScheduler):
    """Multiply by `factor` after more than `patience` validations without improvement.

    Args:
        optimizer: a torch optimiser or an OptimWrapper.
        monitor: a key of the metrics.
        rule: "less" or "greater" is better.
        factor: below 1.
        patience: validations to wait for.
        threshold: what counts as an improvement.
        threshold_rule: "rel" or "abs".
        cooldown: validations after a reduction that are not counted.
        min_value: never below that.
        eps: smaller changes are not made.
        window: begin and end, counted in validations; by_epoch is kept for configs.
    """

    need_val_args = True  # stepped with the metrics

    def __init__(
        self,
        optimizer: Any,
        monitor: str = "loss",
        rule: str = "less",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_rule: str = "rel",
        cooldown: int = 0,
        min_value: float = 0.0,
        eps: float = 1e-8,
        **window: Any,
    ) -> None:
        """Check the rule."""
        if rule not in ("less", "greater"):
            raise ValueError(f"expected rule 'less' or 'greater', got {rule!r}")
        self.monitor = monitor
        self.settings: dict[str, Any] = {
            "mode": "min" if rule == "less" else "max",
            "factor": factor,
            "patience": patience,
            "threshold": threshold,
            "threshold_mode": threshold_rule,
            "cooldown": cooldown,
            "min_lr": min_value,
            "eps": eps,
        }
        super().__init__(optimizer, **window)

    def make(self, stand_in: torch.optim.Optimizer) -> Any:
        """ReduceLROnPlateau."""
        return lr_scheduler.ReduceLROnPlateau(stand_in, **self.settings)

    def step(self, metrics: Mapping[str, Any] | None = None) -> None:
        """One more validation; without metrics nothing happens.

        Raises:
            ConfigError: the metrics have no `monitor`.
        """
        if metrics is None:
            return
        if self.monitor not in metrics:
            hint = did_you_mean(self.monitor, metrics)
            known = ", ".join(metrics)
            raise ConfigError(
                "param_scheduler.monitor", f"no metric {self.monitor!r}, there are {known}{hint}"
            )
        self.last_step += 1
        if self.begin <= self.last_step < self.end:
            self._advance(float(metrics[self.monitor]))
