"""Optimiser wrappers: accumulation, clipping, autocast."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from segfast.distributed.sharded import is_sharded, optimizer_state, whole
from segfast.errors import ConfigError
from segfast.registry import OPTIM_WRAPPERS
from segfast.runner.nonfinite import build_policy

_AMP_DTYPES = ("float16", "bfloat16", "float32", "float64")


@OPTIM_WRAPPERS.register_module()
class OptimWrapper:
    """An optimiser with gradient accumulation and clipping.

    With several parameter groups, one more that holds no parameter stands behind them: it has the optimiser's own
    settings, is scheduled like the others, and says what the learning rate is before any multiplier.

    Args:
        optimizer: a torch optimiser.
        accumulative_counts: micro-steps per step of the optimiser; the loss is divided by it. The last, partial group
            of a training is divided by its own length. Schedulers count micro-steps.
        clip_grad: None, or dict(type="norm" | "value", ...) with the arguments of torch's clip_grad_norm_ or
            clip_grad_value_.
        nonfinite_loss: "stop", an error that names the iteration and its images, with the state saved; or "skip": no
            step, counted and logged. See `segfast.runner.nonfinite`.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        accumulative_counts: int = 1,
        clip_grad: Mapping | None = None,
        nonfinite_loss: str = "stop",
    ) -> None:
        """Check the settings."""
        if accumulative_counts < 1:
            raise ValueError(f"expected accumulative_counts >= 1, got {accumulative_counts}")
        problem = "If `clip_grad` is not None, it should be a dict such as dict(max_norm=1.0)"
        assert clip_grad is None or (isinstance(clip_grad, Mapping) and clip_grad), problem
        self.optimizer = optimizer
        self.accumulative_counts = accumulative_counts
        self.clip_grad = dict(clip_grad) if clip_grad else None
        self.policy = build_policy(nonfinite_loss)
        self.grad_norm: Tensor | None = None  # of the last step, on the device
        self.base_param_settings: dict[str, Any] | None = None
        if len(optimizer.param_groups) > 1:
            self.base_param_settings = {"params": [], **optimizer.defaults}
        self._inner_count, self._max_counts = 0, 0

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Tell how far training is and where it ends, in micro-steps: the trailing group depends on it."""
        self._inner_count, self._max_counts = init_counts, max_counts

    def optim_context(self, model: nn.Module) -> AbstractContextManager:
        """Around forward: no gradient exchange on micro-steps that do not end in an optimiser step."""
        self.policy.before_forward(model)
        if self.accumulative_counts == 1 or self._steps_after(self._inner_count + 1):
            return nullcontext()
        no_sync: Any = getattr(model, "no_sync", nullcontext)
        return no_sync()

    def update_params(
        self, loss: Tensor, step_kwargs: Mapping | None = None, zero_kwargs: Mapping | None = None
    ) -> None:
        """Backward; at the end of an accumulation group also clip, step and clear the gradients.

        Args:
            loss: 0-d.
            step_kwargs: handed to the optimiser's `step`.
            zero_kwargs: handed to its `zero_grad`.

        Raises:
            TypeError: the loss is no tensor, as when no key that the model returned contains "loss".
            NonFiniteLossError: it is NaN or infinite, on the CPU and with nonfinite_loss="stop".
        """
        if not isinstance(loss, Tensor):
            raise TypeError(
                f"the loss to minimise is {loss!r}, no tensor (hint: some key that the model returns in mode='loss' "
                "must contain 'loss')"
            )
        self.policy.look(loss)
        self.backward(self.scale_loss(loss))
        if self.should_update():
            if self.policy.may_step():
                self.step(**(step_kwargs or {}))
            self.zero_grad(**(zero_kwargs or {}))

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss divided by the length of its accumulation group."""
        if self.accumulative_counts == 1:
            return loss
        trailing = self._max_counts % self.accumulative_counts
        in_trailing = self._max_counts and self._inner_count >= self._max_counts - trailing
        # A training that goes on past its announced end has no trailing group any more.
        return loss / (trailing if in_trailing and trailing else self.accumulative_counts)

    def backward(self, loss: Tensor, **options: Any) -> None:
        """Gradients of a scaled loss; one more micro-step."""
        loss.backward(**options)
        self._inner_count += 1

    @property
    def inner_count(self) -> int:
        """Micro-steps done."""
        return self._inner_count

    def should_update(self) -> bool:
        """Whether the micro-steps so far end an accumulation group."""
        return self._steps_after(self._inner_count)

    def step(self, **options: Any) -> None:
        """Clip and take one step of the optimiser."""
        self._clip()
        self.optimizer.step(**options)

    def zero_grad(self, **options: Any) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(**options)

    def get_lr(self) -> dict[str, list[float]]:
        """{"lr": one per parameter group}; with several groups also {"base_lr": [the one before multipliers]}."""
        return self._settings("lr", lambda group: group["lr"])

    def get_momentum(self) -> dict[str, list[float]]:
        """As `get_lr`, of the momentum, or the first beta; 0 where the optimiser has neither."""

        def momentum(group: dict) -> float:
            return group["momentum"] if "momentum" in group else group.get("betas", (0.0,))[0]

        return self._settings("momentum", momentum)

    def state_dict(self) -> dict:
        """The optimiser's, and the base settings where there are several groups."""
        state = whole(self.optimizer.state_dict())
        if self.base_param_settings is not None:
            state["base_param_settings"] = dict(self.base_param_settings)
        return state

    def load_state_dict(self, state: dict) -> None:
        """Into the optimiser."""
        state = dict(state)
        base = state.pop("base_param_settings", None)
        if base is not None and self.base_param_settings is not None:
            self.base_param_settings.update(base, params=[])
        self.optimizer.load_state_dict(optimizer_state(state, self.optimizer))

    @property
    def defaults(self) -> dict:
        """The optimiser's."""
        return self.optimizer.defaults

    @property
    def param_groups(self) -> list[dict]:
        """The optimiser's, then the base settings where there are several."""
        base = [] if self.base_param_settings is None else [self.base_param_settings]
        return self.optimizer.param_groups + base

    def _settings(self, name: str, read: Any) -> dict[str, list[float]]:
        found = {name: [read(group) for group in self.optimizer.param_groups]}
        if self.base_param_settings is not None:
            found[f"base_{name}"] = [read(self.base_param_settings)]
        return found

    def _steps_after(self, count: int) -> bool:
        return count % self.accumulative_counts == 0 or count == self._max_counts

    def _clip(self) -> None:
        if self.clip_grad is None:
            return
        options = dict(self.clip_grad)
        kind = options.pop("type", "norm")
        parameters = [
            p
            for group in self.optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        if kind == "norm":
            norm = nn.utils.clip_grad_norm_(parameters, **options)
            self.grad_norm = norm.full_tensor() if is_sharded(norm) else norm  # type: ignore[attr-defined]
        elif kind == "value":
            nn.utils.clip_grad_value_(parameters, **options)
        else:
            raise ConfigError(
                "optim_wrapper.clip_grad.type", f"expected 'norm' or 'value', got {kind!r}"
            )


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(OptimWrapper):
    """Mixed precision: forward under autocast, float16 gradients scaled.

    Args:
        optimizer: a torch optimiser.
        dtype: "float16" (default on CUDA) or "bfloat16" (default on the CPU), or the torch dtype.
        loss_scale: "dynamic", a fixed number, or a dict for torch.amp.GradScaler; float16 only.
        use_fsdp: may stay in a config of MMEngine's; sharded gradients need no other scaler here.
        options: as `OptimWrapper`.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        dtype: str | torch.dtype | None = None,
        loss_scale: str | float | Mapping = "dynamic",
        use_fsdp: bool = False,
        **options: Any,
    ) -> None:
        """Choose the device type from the parameters."""
        super().__init__(optimizer, **options)
        self.device_type = optimizer.param_groups[0]["params"][0].device.type
        if dtype is None:
            dtype = "float16" if self.device_type == "cuda" else "bfloat16"
        if isinstance(dtype, str):
            if dtype not in _AMP_DTYPES:
                raise ValueError(f"dtype should be any of {', '.join(_AMP_DTYPES)}, got {dtype!r}")
            dtype = getattr(torch, dtype)
        self.dtype: torch.dtype = dtype  # type: ignore[assignment]
        self._fixed_scale: float | None = None
        scaler: dict[str, Any] = {"enabled": self.dtype == torch.float16}
        if isinstance(loss_scale, (int, float)) and not isinstance(loss_scale, bool):
            self._fixed_scale = float(loss_scale)
            scaler["init_scale"] = self._fixed_scale
        elif isinstance(loss_scale, Mapping):
            scaler |= dict(loss_scale)
        elif loss_scale != "dynamic":
            raise TypeError(
                f"loss_scale must be of type float, dict, or 'dynamic', got {loss_scale!r}"
            )
        self.loss_scaler = torch.amp.GradScaler(self.device_type, **scaler)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """As `OptimWrapper`, under autocast."""
        with super().optim_context(model), torch.autocast(self.device_type, self.dtype):
            yield

    def backward(self, loss: Tensor, **options: Any) -> None:
        """Gradients of the scaled loss; one more micro-step."""
        super().backward(self.loss_scaler.scale(loss), **options)

    def step(self, **options: Any) -> None:
        """Unscale, clip, step unless a gradient overflowed."""
        if self.clip_grad is not None:
            self.loss_scaler.unscale_(self.optimizer)
        self._clip()
        self.loss_scaler.step(self.optimizer, **options)
        self.loss_scaler.update(self._fixed_scale)

    def state_dict(self) -> dict:
        """The optimiser's and the scaler's."""
        return {**super().state_dict(), "loss_scaler": self.loss_scaler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Into both."""
        state = dict(state)
        scaler = state.pop("loss_scaler", None)
        if scaler:
            self.loss_scaler.load_state_dict(scaler)
        super().load_state_dict(state)
