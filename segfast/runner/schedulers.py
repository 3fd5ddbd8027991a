"""The parameter schedulers by name. Source: MMEngine's schedulers (names, arguments, endpoints); torch's formulas."""

# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import lr_scheduler

from segfast.registry import PARAM_SCHEDULERS
from segfast.runner.scheduler import DecayToMinimum, ParamScheduler


@PARAM_SCHEDULERS.register_module(name=["PolyLR", "PolyParamScheduler", "PolyLRRatio"])
class PolyLR(DecayToMinimum):
    """(1 - t / T)^power from the value at `begin` down to `eta_min`, reached at the last step."""

    def __init__(self, optimizer: Any, power: float = 1.0, **options: Any) -> None:
        """Take the exponent; `options` are eta_min or eta_min_ratio, begin, end, by_epoch."""
        self.power = power
        super().__init__(optimizer, **options)

    def make(self, stand_in: torch.optim.Optimizer) -> Any:
        """PolynomialLR ends at 0, which is `eta_min` here."""
        return lr_scheduler.PolynomialLR(stand_in, max(self.end - self.begin - 1, 1), self.power)


@PARAM_SCHEDULERS.register_module(name=["CosineAnnealingLR", "CosineAnnealingParamScheduler"])
class CosineAnnealingLR(DecayToMinimum):
    """Half a cosine from the value at `begin` to `eta_min` over `T_max` steps (default: the whole window)."""

    epoch_arguments = ("T_max",)

    def __init__(self, optimizer: Any, T_max: int | None = None, **options: Any) -> None:
        """Take the length; `options` are eta_min or eta_min_ratio, begin, end, by_epoch."""
        self.T_max = T_max
        super().__init__(optimizer, **options)

    def make(self, stand_in: torch.optim.Optimizer) -> Any:
        """CosineAnnealingLR."""
        return lr_scheduler.CosineAnnealingLR(stand_in, self.T_max or self.end - self.begin)


@PARAM_SCHEDULERS.register_module(name=["CosineRestartLR", "CosineRestartParamScheduler"])
class CosineRestartLR(DecayToMinimum):
    """Half a cosine over each of `periods`, from `restart_weights` times the initial value; then left alone."""

    epoch_arguments = ("periods",)

    def __init__(
        self,
        optimizer: Any,
        periods: Sequence[int],
        restart_weights: Sequence[float] = (1,),
        **options: Any,
    ) -> None:
        """Take lengths and heights, one each per restart."""
        if len(periods) != len(restart_weights):
            raise ValueError("periods and restart_weights should have the same length")
        self.periods, self.restart_weights = list(periods), list(restart_weights)
        super().__init__(optimizer, **options)

    def make(self, stand_in: torch.optim.Optimizer) -> Any:
        """As `_CosineRestarts`."""
        return _CosineRestarts(stand_in, self.periods, self._peaks())

    def _peaks(self) -> list[list[float]]:
        """Per group and restart the value it starts from, less the offset."""
        initials = [group[self._initial] for group in self.optimizer.param_groups]
        return [[i * w - self.offset(i) for w in self.restart_weights] for i in initials]


class _CosineRestarts(lr_scheduler.LRScheduler):
    """torch's warm restarts have one height, and periods that grow by a factor; here both are lists."""

    def __init__(self, optimizer: Any, periods: list[int], peaks: list[list[float]]) -> None:
        self.periods, self.peaks = periods, peaks
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Closed form."""
        step = self.last_epoch
        for i, period in enumerate(self.periods):
            if step < period:
                return [
                    peaks[i] * (1 + math.cos(math.pi * step / period)) / 2 for peaks in self.peaks
                ]
            step -= period
        return [group["lr"] for group in self.optimizer.param_groups]


@PARAM_SCHEDULERS.register_module(name=["LinearLR", "LinearParamScheduler"])
class LinearLR(ParamScheduler):
    """A straight line from `start_factor` to `end_factor` times the value at `begin`: warm-up."""

    def __init__(
        self, optimizer: Any, start_factor: float = 1 / 3, end_factor: float = 1.0, **window: Any
    ) -> None:
        """Take both factors."""
        self.start_factor, self.end_factor = start_factor, end_factor
        super().__init__(optimizer, **window)

    def make(self, stand_in: torch.optim.Optimizer) -> Any:
        """LinearLR."""
        intervals = max(self.end - self.begin - 1, 1)
        return lr_scheduler.LinearLR(stand_in, self.start_factor, self.end_factor, intervals)


@PARAM_SCHEDULERS.register_module(name=["ConstantLR", "ConstantParamScheduler"])
class ConstantLR(ParamScheduler):
    """`factor` times the value at `begin`, and that value again at the last step."""

    def __init__(self, optimizer: Any, factor: float = 1 / 3, **window: Any) -> None:
        """Take the factor."""
        self.factor = factor
        super().__init__(optimizer, **window)

    def make(self, stand_in: torch.optim.Optimizer) -> Any:
        """ConstantLR."""
        return lr_scheduler.ConstantLR(stand_in, self.factor, max(self.end - self.begin - 1, 1))


@PARAM_SCHEDULERS.register_module(name=["StepLR", "StepParamScheduler"])
class StepLR(ParamScheduler):
    """Multiply by `gamma` every `step_size` steps."""

    epoch_arguments = ("step_size",)

    def __init__(self, optimizer: Any, step_size: int, gamma: float = 0.1, **window: Any) -> None:
        """Take distance and factor."""
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, **window)

    def make(self, stand_in: torch.optim.Optimizer) -> Any:
        """StepLR."""
        return lr_scheduler.StepLR(stand_in, self.step_size, self.gamma)


@PARAM_SCHEDULERS.register_module(name=["MultiStepLR", "MultiStepParamScheduler"])
class MultiStepLR(ParamScheduler):
    """Multiply by `gamma` at each milestone, counted from `begin`."""

    epoch_arguments = ("milestones",)

    def __init__(
        self, optimizer: Any, milestones: Sequence[int], gamma: float = 0.1, **window: Any
    ) -> None:
        """Take places and factor."""
        self.milestones, self.gamma = list(milestones), gamma
        super().__init__(optimizer, **window)

    def make(self, stand_in: torch.optim.Optimizer) -> Any:
        """MultiStepLR."""
        return lr_scheduler.MultiStepLR(stand_in, self.milestones, self.gamma)


@PARAM_SCHEDULERS.register_module(name=["ExponentialLR", "ExponentialParamScheduler"])
class ExponentialLR(ParamScheduler):
    """Multiply by `gamma` at each step."""

    def __init__(self, optimizer: Any, gamma: float, **window: Any) -> None:
        """Take the factor."""
        self.gamma = gamma
        super().__init__(optimizer, **window)

    def make(self, stand_in: torch.optim.Optimizer) -> Any:
        """ExponentialLR."""
        return lr_scheduler.ExponentialLR(stand_in, self.gamma)


@PARAM_SCHEDULERS.register_module(name=["OneCycleLR", "OneCycleParamScheduler"])
class OneCycleLR(ParamScheduler):
    """Up from `eta_max / div_factor` to `eta_max` and down to `eta_max / div_factor / final_div_factor`.

    Args:
        optimizer: a torch optimiser or an OptimWrapper.
        eta_max: the highest value.
        total_steps: length of the cycle; default: the whole window.
        options: pct_start, anneal_strategy, div_factor, final_div_factor, three_phase, as torch's OneCycleLR has
            them (its momentum is left alone); begin, end, by_epoch.
    """

    epoch_arguments = ("total_steps",)

    def __init__(
        self,
        optimizer: Any,
        eta_max: float,
        total_steps: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        **window: Any,
    ) -> None:
        """Take the shape of the cycle."""
        self.eta_max, self.total_steps = eta_max, total_steps
        self.shape: dict[str, Any] = {
            "pct_start": pct_start,
            "anneal_strategy": anneal_strategy,
            "div_factor": div_factor,
            "final_div_factor": final_div_factor,
            "three_phase": three_phase,
        }
        super().__init__(optimizer, **window)

    def make(self, stand_in: torch.optim.Optimizer) -> Any:
        """OneCycleLR."""
        steps = self.total_steps or self.end - self.begin
        return lr_scheduler.OneCycleLR(
            stand_in, self.eta_max, steps, cycle_momentum=False, **self.shape
        )
