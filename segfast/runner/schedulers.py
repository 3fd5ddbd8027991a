"""Parameter schedulers in closed form: the learning rate of a step depends on the step only.

Each scheduler multiplies or replaces the value between `begin` and `end` and leaves it alone outside, so that several
can follow each other (warm-up, then decay). Source: MMEngine's schedulers (closed forms, endpoints).
"""

# SPDX-License-Identifier: Apache-2.0

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from segfast.registry import PARAM_SCHEDULERS


class ParamScheduler:
    """Base of all schedulers.

    Args:
        optimizer: a torch optimiser, or anything with `param_groups`.
        begin: first step of this scheduler, in epochs or iterations.
        end: first step after it; None means the end of training (the Runner fills it in).
        by_epoch: steps are epochs, otherwise iterations.
        param_name: the key of `param_groups` that is scheduled.
    """

    def __init__(
        self,
        optimizer: Any,
        begin: int = 0,
        end: int | None = None,
        by_epoch: bool = True,
        param_name: str = "lr",
    ) -> None:
        """Remember the values to start from and set the first step's."""
        if end is not None and end <= begin:
            raise ValueError(f"expected end > begin, got begin={begin}, end={end}")
        self.optimizer = getattr(optimizer, "optimizer", optimizer)
        self.begin, self.end, self.by_epoch, self.param_name = (
            begin,
            end if end is not None else 2**62,
            by_epoch,
            param_name,
        )
        for group in self.optimizer.param_groups:
            group.setdefault(f"initial_{param_name}", group[param_name])
        self.base_values = [group[f"initial_{param_name}"] for group in self.optimizer.param_groups]
        self.last_step = -1
        self.step()

    @property
    def local_step(self) -> int:
        """Steps since `begin`."""
        return self.last_step - self.begin

    def value(self, base: float) -> float:
        """The value at `local_step`, from the value at the beginning of training."""
        raise NotImplementedError

    def step(self) -> None:
        """Advance by one and set the parameter of every group."""
        self.last_step += 1
        if self.begin <= self.last_step < self.end:
            for group, base in zip(self.optimizer.param_groups, self.base_values, strict=True):
                group[self.param_name] = self.value(base)

    def state_dict(self) -> dict:
        """Everything that `load_state_dict` needs, as plain numbers."""
        return {"last_step": self.last_step, "base_values": list(self.base_values)}

    def load_state_dict(self, state: dict) -> None:
        """Continue where another instance stopped."""
        self.last_step, self.base_values = state["last_step"], list(state["base_values"])


@PARAM_SCHEDULERS.register_module()
class PolyLR(ParamScheduler):
    """(1 - t / T)^power from the base value down to `eta_min`, reached at the last step."""

    def __init__(
        self, optimizer: Any, power: float = 1.0, eta_min: float = 0.0, **window: Any
    ) -> None:
        """Take the exponent and the final value; `window` is begin, end, by_epoch."""
        self.power, self.eta_min = power, eta_min
        super().__init__(optimizer, **window)

    def value(self, base: float) -> float:
        """Closed form."""
        total = max(self.end - self.begin - 1, 1)
        return (
            self.eta_min
            + (base - self.eta_min) * max(1 - self.local_step / total, 0.0) ** self.power
        )


@PARAM_SCHEDULERS.register_module()
class LinearLR(ParamScheduler):
    """A straight line from `start_factor` to `end_factor` times the base value: warm-up."""

    def __init__(
        self, optimizer: Any, start_factor: float = 1 / 3, end_factor: float = 1.0, **window: Any
    ) -> None:
        """Take both factors."""
        self.start_factor, self.end_factor = start_factor, end_factor
        super().__init__(optimizer, **window)

    def value(self, base: float) -> float:
        """Closed form."""
        total = max(self.end - self.begin - 1, 1)
        return base * (
            self.start_factor
            + (self.end_factor - self.start_factor) * min(self.local_step / total, 1.0)
        )


@PARAM_SCHEDULERS.register_module()
class ConstantLR(ParamScheduler):
    """`factor` times the base value, and the base value at the last step."""

    def __init__(self, optimizer: Any, factor: float = 1 / 3, **window: Any) -> None:
        """Take the factor."""
        self.factor = factor
        super().__init__(optimizer, **window)

    def value(self, base: float) -> float:
        """Closed form."""
        return base if self.last_step == self.end - 1 else base * self.factor


@PARAM_SCHEDULERS.register_module()
class CosineAnnealingLR(ParamScheduler):
    """Half a cosine from the base value to `eta_min` over `T_max` steps (default: the whole window)."""

    def __init__(
        self, optimizer: Any, T_max: int | None = None, eta_min: float = 0.0, **window: Any
    ) -> None:
        """Take the length and the final value."""
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, **window)

    def value(self, base: float) -> float:
        """Closed form."""
        total = self.T_max or self.end - self.begin
        return (
            self.eta_min
            + (base - self.eta_min) * (1 + math.cos(math.pi * self.local_step / total)) / 2
        )


@PARAM_SCHEDULERS.register_module()
class MultiStepLR(ParamScheduler):
    """Multiply by `gamma` at each milestone."""

    def __init__(
        self, optimizer: Any, milestones: Sequence[int], gamma: float = 0.1, **window: Any
    ) -> None:
        """Take the milestones, counted from `begin`."""
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, **window)

    def value(self, base: float) -> float:
        """Closed form."""
        return base * self.gamma ** bisect_right(self.milestones, self.local_step)
