"""EMAHook: a moving average of the weights, validated and saved in place of the weights themselves."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from segfast.distributed.sharded import as_sharded, whole
from segfast.errors import CheckpointError
from segfast.models.distributed import unwrapped
from segfast.registry import HOOKS, did_you_mean
from segfast.runner.hooks import Hook

_KINDS = ("ExponentialMovingAverage", "MomentumAnnealingEMA", "StochasticWeightAverage")


@HOOKS.register_module()
class EMAHook(Hook):
    """Averages the weights after every iteration; swaps the average in for validation and testing.

    average = (1 - momentum) * average + momentum * weights, starting from the weights. In checkpoints `state_dict` is
    the average, ready for use, and `ema_state_dict` the weights that training goes on with.

    Args:
        ema_type: "ExponentialMovingAverage"; "MomentumAnnealingEMA": its momentum is
            max(momentum, gamma / (gamma + updates)); "StochasticWeightAverage": the plain mean.
        momentum: weight of the newest weights, small.
        gamma: of MomentumAnnealingEMA.
        interval: iterations between updates.
        update_buffers: average the buffers that are floating point as well; else the model's own serve.
        begin_iter: the first iteration that counts; until then there is no average.
        begin_epoch: the same in epochs, instead.
        strict_load: refuse a checkpoint whose average does not fit.

    Source: MMEngine's EMAHook (arguments, what checkpoints hold); the updates are torch.optim.swa_utils'.
    """

    def __init__(
        self,
        ema_type: str = "ExponentialMovingAverage",
        momentum: float = 0.0002,
        gamma: int = 100,
        interval: int = 1,
        update_buffers: bool = False,
        begin_iter: int = 0,
        begin_epoch: int = 0,
        strict_load: bool = False,
    ) -> None:
        """Check the settings."""
        if ema_type not in _KINDS:
            hint = did_you_mean(ema_type, _KINDS) or f", expected one of {', '.join(_KINDS)}"
            raise ValueError(f"unknown ema_type {ema_type!r}{hint}")
        if not 0.0 < momentum < 1.0:
            raise ValueError(f"momentum must be in range (0.0, 1.0), got {momentum}")
        if interval < 1:
            raise ValueError(f"expected interval >= 1, got {interval}")
        if begin_iter and begin_epoch:
            raise ValueError("`begin_iter` and `begin_epoch` should not be both set")
        self.ema_type, self.momentum, self.gamma = ema_type, momentum, gamma
        self.interval, self.update_buffers = interval, update_buffers
        self.begin_iter, self.begin_epoch, self.strict_load = begin_iter, begin_epoch, strict_load
        self.average: dict[str, Tensor] | None = None  # by the names of the model's state_dict
        self.steps = 0
        self._swapped = False  # the average is in the model, the weights are in `average`

    def before_train(self, runner: Any) -> None:
        """Behind a validation that was cut off, train the weights."""
        self._put(unwrapped(runner.model), average=False)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Update; the first time, copy."""
        if not self._started(runner):
            return
        weights = self._weights(unwrapped(runner.model))
        if self.average is None:
            self.average = {name: value.clone() for name, value in weights.items()}
        elif self.steps % self.interval == 0:
            names = [name for name, value in weights.items() if value.is_floating_point()]
            new, old = [weights[name] for name in names], [self.average[name] for name in names]
            with torch.no_grad():
                self._update()(old, new, self.steps // self.interval)
        self.steps += 1

    def before_val_epoch(self, runner: Any) -> None:
        """Validate the average."""
        self._put(unwrapped(runner.model), average=True)

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Train on."""
        self._put(unwrapped(runner.model), average=False)

    def before_test_epoch(self, runner: Any) -> None:
        """Test the average."""
        self._put(unwrapped(runner.model), average=True)

    def after_test_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Back again."""
        self._put(unwrapped(runner.model), average=False)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """The average goes where weights are looked for, the weights beside it; also amid a validation."""
        if self.average is None:
            return
        in_model, beside = checkpoint["state_dict"], whole(self.average)
        average, weights = (in_model, beside) if self._swapped else (beside, in_model)
        checkpoint["ema_state_dict"] = {"steps": self.steps} | {
            f"module.{name}": weights[name] for name in self.average
        }
        checkpoint["state_dict"] = {**in_model, **average}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """A resumed run takes both back; a fresh one starts from the average."""
        saved = checkpoint.get("ema_state_dict")
        if saved is None or not runner.resume:
            return
        own = self._weights(unwrapped(runner.model))
        kept = {name.removeprefix("module."): value for name, value in saved.items()}
        self.steps = int(kept.pop("steps", 0))
        state = checkpoint["state_dict"]
        fitting = [name for name in own if name in kept and name in state]
        if self.strict_load and len(fitting) < len(own):
            raise CheckpointError("the average in the checkpoint does not fit the model")
        # A copy: the model's tensors and the average's must not be the same ones.
        self.average = {
            name: as_sharded(state.get(name, own[name]).to(own[name].device, copy=True), own[name])
            for name in own
        }
        checkpoint["state_dict"] = {**state, **{name: kept[name] for name in fitting}}

    def _started(self, runner: Any) -> bool:
        if self.begin_epoch:
            return runner.epoch + 1 >= self.begin_epoch
        return runner.iter + 1 >= self.begin_iter

    def _weights(self, model: nn.Module) -> dict[str, Tensor]:
        """What is averaged, by name."""
        if self.update_buffers:
            return {name: value.detach() for name, value in model.state_dict().items()}
        return {name: value.detach() for name, value in model.named_parameters()}

    def _update(self) -> Callable:
        """The update of one step, in place."""
        if self.ema_type == "StochasticWeightAverage":
            return get_swa_multi_avg_fn()
        momentum = self.momentum
        if self.ema_type == "MomentumAnnealingEMA":
            momentum = max(momentum, self.gamma / (self.gamma + self.steps))
        return get_ema_multi_avg_fn(1 - momentum)

    @torch.no_grad()
    def _put(self, model: nn.Module, average: bool) -> None:
        """The average, or else the weights, into the model: exchanged, their memory stays where it is."""
        if self.average is None or self._swapped == average:
            return
        self._swapped = average
        for name, value in self._weights(model).items():
            kept = value.clone()
            value.copy_(self.average[name])
            self.average[name].copy_(kept)
