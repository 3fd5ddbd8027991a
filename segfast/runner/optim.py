"""Optimiser wrappers: accumulation, clipping, autocast; and how a config becomes one."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from segfast.errors import ConfigError
from segfast.registry import OPTIM_WRAPPERS, OPTIMIZERS

for _name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam"):
    OPTIMIZERS.register_module(module=getattr(torch.optim, _name))


@OPTIM_WRAPPERS.register_module()
class OptimWrapper:
    """An optimiser with gradient accumulation and clipping.

    Args:
        optimizer: a torch optimiser.
        accumulative_counts: micro-steps per step of the optimiser; the loss is divided by it. The last, partial group
            of a training is divided by its own length.
        clip_grad: None, or dict(type="norm" | "value", ...) with the arguments of torch's clip_grad_norm_ or
            clip_grad_value_.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        accumulative_counts: int = 1,
        clip_grad: Mapping | None = None,
    ) -> None:
        """Check the settings."""
        if accumulative_counts < 1:
            raise ValueError(f"expected accumulative_counts >= 1, got {accumulative_counts}")
        if clip_grad is not None and (not isinstance(clip_grad, Mapping) or not clip_grad):
            raise ValueError(
                "If `clip_grad` is not None, it should be a dict such as dict(max_norm=1.0)"
            )
        self.optimizer = optimizer
        self.accumulative_counts = accumulative_counts
        self.clip_grad = dict(clip_grad) if clip_grad else None
        self.grad_norm: Tensor | None = None  # of the last step, on the device
        self._inner_count, self._max_counts = 0, 0

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Tell how far training is and where it ends, in micro-steps: the trailing group depends on it."""
        self._inner_count, self._max_counts = init_counts, max_counts

    def optim_context(self, model: nn.Module) -> AbstractContextManager:
        """Around forward: no gradient exchange on micro-steps that do not end in an optimiser step."""
        if self.accumulative_counts == 1 or self._steps_after(self._inner_count + 1):
            return nullcontext()
        no_sync: Any = getattr(model, "no_sync", nullcontext)
        return no_sync()

    def update_params(self, loss: Tensor) -> None:
        """Backward; at the end of an accumulation group also clip, step and clear the gradients."""
        self.backward(self._scaled(loss))
        self._inner_count += 1
        if self._steps_after(self._inner_count):
            self.step()
            self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Gradients of a scaled loss."""
        loss.backward()

    def step(self) -> None:
        """Clip and take one step of the optimiser."""
        self._clip()
        self.optimizer.step()

    def get_lr(self) -> list[float]:
        """The learning rate of every parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict:
        """The optimiser's."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Into the optimiser."""
        self.optimizer.load_state_dict(state)

    @property
    def param_groups(self) -> list[dict]:
        """The optimiser's."""
        return self.optimizer.param_groups

    def _steps_after(self, count: int) -> bool:
        return count % self.accumulative_counts == 0 or count == self._max_counts

    def _scaled(self, loss: Tensor) -> Tensor:
        if self.accumulative_counts == 1:
            return loss
        trailing = self._max_counts % self.accumulative_counts
        in_trailing = self._max_counts and self._inner_count >= self._max_counts - trailing
        return loss / (trailing if in_trailing else self.accumulative_counts)

    def _clip(self) -> None:
        if self.clip_grad is None:
            return
        options = dict(self.clip_grad)
        kind = options.pop("type", "norm")
        parameters = [
            p for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        if kind == "norm":
            self.grad_norm = nn.utils.clip_grad_norm_(parameters, **options)
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
        options: as `OptimWrapper`.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        dtype: str | torch.dtype | None = None,
        loss_scale: str | float | Mapping = "dynamic",
        **options: Any,
    ) -> None:
        """Choose the device type from the parameters."""
        super().__init__(optimizer, **options)
        self.device_type = self.param_groups[0]["params"][0].device.type
        if dtype is None:
            dtype = "float16" if self.device_type == "cuda" else "bfloat16"
        self.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        scaler: dict[str, Any] = {"enabled": self.dtype == torch.float16}
        if isinstance(loss_scale, (int, float)):
            scaler |= {"init_scale": float(loss_scale), "growth_interval": 2**31 - 1}
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

    def backward(self, loss: Tensor) -> None:
        """Gradients of the scaled loss."""
        self.loss_scaler.scale(loss).backward()

    def step(self) -> None:
        """Unscale, clip, step unless a gradient overflowed."""
        if self.clip_grad is not None:
            self.loss_scaler.unscale_(self.optimizer)
        self._clip()
        self.loss_scaler.step(self.optimizer)
        self.loss_scaler.update()

    def state_dict(self) -> dict:
        """The optimiser's and the scaler's."""
        return {**self.optimizer.state_dict(), "loss_scaler": self.loss_scaler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Into both."""
        state = dict(state)
        if "loss_scaler" in state:
            self.loss_scaler.load_state_dict(state.pop("loss_scaler"))
        self.optimizer.load_state_dict(state)


def build_optim_wrapper(model: nn.Module, cfg: Mapping | OptimWrapper) -> OptimWrapper:
    """Build the wrapper of a config: dict(type, optimizer=dict(type, lr, ...), paramwise_cfg=..., ...).

    `paramwise_cfg`: `custom_keys` {substring of a parameter's name: dict(lr_mult, decay_mult)}, the longest match wins;
    `norm_decay_mult` and `bias_decay_mult` for the rest.
    """
    if isinstance(cfg, OptimWrapper):
        return cfg
    options = dict(cfg)
    options.setdefault("type", "OptimWrapper")
    options.pop("constructor", None)
    optimizer_cfg = options.pop("optimizer", None)
    if not isinstance(optimizer_cfg, Mapping):
        raise ConfigError("optim_wrapper.optimizer", "expected dict(type=..., lr=...)")
    paramwise = options.pop("paramwise_cfg", None) or {}
    groups = _parameter_groups(model, dict(optimizer_cfg), dict(paramwise))
    optimizer = OPTIMIZERS.build(optimizer_cfg, path="optim_wrapper.optimizer", params=groups)
    return OPTIM_WRAPPERS.build(options, path="optim_wrapper", optimizer=optimizer)


def _parameter_groups(model: nn.Module, optimizer_cfg: dict, paramwise: dict) -> list[dict]:
    """Parameters with equal multipliers share a group; frozen ones are left out."""
    known = {"custom_keys", "norm_decay_mult", "bias_decay_mult"}
    for key in paramwise:
        if key not in known:
            raise ConfigError(
                f"optim_wrapper.paramwise_cfg.{key}", f"unknown, expected one of {sorted(known)}"
            )
    custom = paramwise.get("custom_keys", {})
    order = sorted(sorted(custom), key=len, reverse=True)
    norms = {
        f"{module_name}.{name}" if module_name else name
        for module_name, module in model.named_modules()
        if isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm))
        for name, _ in module.named_parameters(recurse=False)
    }
    lr, decay = optimizer_cfg.get("lr"), optimizer_cfg.get("weight_decay", 0.0)
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        match = next((key for key in order if key in name), None)
        if match is not None:
            factors = custom[match].get("lr_mult", 1.0), custom[match].get("decay_mult", 1.0)
        elif name in norms:
            factors = 1.0, paramwise.get("norm_decay_mult", 1.0)
        elif name.endswith(".bias"):
            factors = 1.0, paramwise.get("bias_decay_mult", 1.0)
        else:
            factors = 1.0, 1.0
        groups.setdefault(factors, []).append(parameter)
    if not groups:
        raise ConfigError("model", "has no trainable parameters")
    if lr is None or (len(groups) == 1 and (1.0, 1.0) in groups):
        return [{"params": parameters} for parameters in groups.values()]
    return [
        {"params": parameters, "lr": lr * lr_mult, "weight_decay": decay * decay_mult}
        for (lr_mult, decay_mult), parameters in groups.items()
    ]
