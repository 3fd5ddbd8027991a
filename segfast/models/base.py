"""BaseModel: what a training loop calls, and how the losses of an iteration add up."""

# SPDX-License-Identifier: Apache-2.0
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segfast.models.base_data_preprocessor import (
    BaseDataPreprocessor,
    cuda_device,
    device_argument,
)
from segfast.models.initial_weights import init_parts
from segfast.registry import MODELS


class BaseModel(nn.Module, ABC):
    """A module that preprocesses its own batches and answers in three modes.

    Args:
        data_preprocessor: a module, its config, or None for one that only moves data.
        init_cfg: kept as an attribute for code written for MMEngine; nothing reads it here,
            initialise weights in the constructor.
    """

    def __init__(
        self, data_preprocessor: Mapping | nn.Module | None = None, init_cfg: Mapping | None = None
    ) -> None:
        """Build the preprocessor.

        Raises:
            TypeError: `data_preprocessor` is neither a module, nor a config, nor None.
        """
        super().__init__()
        if data_preprocessor is None:
            data_preprocessor = {"type": "BaseDataPreprocessor"}
        if isinstance(data_preprocessor, Mapping):
            data_preprocessor = MODELS.build(data_preprocessor, path="data_preprocessor")
        if not isinstance(data_preprocessor, nn.Module):
            raise TypeError(
                "data_preprocessor should be a config, a module or None, got "
                f"{type(data_preprocessor).__name__}"
            )
        if init_cfg is not None:
            warnings.warn(
                "init_cfg is not applied: initialise weights in the constructor", stacklevel=2
            )
        self.init_cfg = init_cfg
        self.data_preprocessor = data_preprocessor

    def init_weights(self) -> None:
        """Called once before a training that does not resume: the parts that have it initialise.

        Constructors of segfast's classes initialise already; a subclass that overrides this calls it for its parts.
        """
        init_parts(self)

    @abstractmethod
    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        """Answer in one of three modes.

        Args:
            inputs: what the preprocessor made of the batch's `inputs`.
            data_samples: what it made of `data_samples`.
            mode: "loss" -> dict of named tensors (or lists of tensors); those with "loss" in
                their name are minimised. "predict" -> list of samples. "tensor" -> raw output.
        """

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """Preprocess a batch, compute its losses, take an optimiser step.

        Args:
            data: a collated batch: dict (keyword arguments of `forward`), tuple or list.
            optim_wrapper: has `optim_context(model)` and `update_params(loss)`.

        Returns:
            OrderedDict of 0-d tensors on the device, the total under "loss" first. Nothing here
            waits for the device.
        """
        with optim_wrapper.optim_context(self):
            data = self.data_preprocessor(data, True)
            losses = self._run_forward(data, mode="loss")
        total, log_vars = self.parse_losses(losses)
        optim_wrapper.update_params(total)
        return log_vars

    def val_step(self, data: Any) -> Any:
        """Preprocess a batch and return `forward(mode="predict")`, untouched."""
        data = self.data_preprocessor(data, False)
        return self._run_forward(data, mode="predict")

    def test_step(self, data: Any) -> Any:
        """As `val_step`."""
        data = self.data_preprocessor(data, False)
        return self._run_forward(data, mode="predict")

    def parse_losses(self, losses: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up the losses of one iteration.

        A tensor counts with its mean, a list of tensors with the sum of their means. The total is
        the sum of all entries whose key contains "loss", anywhere and case-sensitive.

        Args:
            losses: named tensors and lists of tensors.

        Returns:
            The total, and an OrderedDict with the total as "loss" in front of all entries. (An
            entry of exactly that name replaces the total there, as in MMEngine.)

        Raises:
            TypeError: an entry is neither a tensor nor a list of tensors.
        """
        means: list[tuple[str, Any]] = []
        for name, value in losses.items():
            if isinstance(value, Tensor):
                means.append((name, _mean(value)))
            elif isinstance(value, list) and all(isinstance(part, Tensor) for part in value):
                means.append((name, _sum([_mean(part) for part in value])))
            else:
                raise TypeError(f"{name} is not a tensor or list of tensors: {type(value)}")
        total = _sum([value for name, value in means if "loss" in name])
        return total, OrderedDict([("loss", total), *means])  # type: ignore[return-value]

    def _run_forward(self, data: Any, mode: str) -> Any:
        """Unpack preprocessed data into `forward`."""
        return run_forward(self, data, mode)

    def to(self, *args: Any, **kwargs: Any) -> "BaseModel":
        """As `nn.Module.to`; nested preprocessors move their batches to the named device too."""
        device = device_argument(*args, **kwargs)
        if device is not None:
            self._set_device(device)
        return super().to(*args, **kwargs)

    def cuda(self, device: int | torch.device | None = None) -> "BaseModel":
        """As `nn.Module.cuda`, nested preprocessors included."""
        self._set_device(cuda_device(device))
        return super().cuda(device)

    def cpu(self) -> "BaseModel":
        """As `nn.Module.cpu`, nested preprocessors included."""
        self._set_device(torch.device("cpu"))
        return super().cpu()

    def _set_device(self, device: torch.device) -> None:
        for module in self.modules():
            if isinstance(module, BaseDataPreprocessor):
                module._device = device


def run_forward(model: nn.Module, data: Any, mode: str) -> Any:
    """Call a model with preprocessed data: a dict's keywords, a list's or tuple's positions.

    Raises:
        TypeError: `data` is something else.
    """
    if isinstance(data, Mapping):
        return model(**data, mode=mode)
    if isinstance(data, (list, tuple)):
        return model(*data, mode=mode)
    raise TypeError(f"expected preprocessed data as dict, list or tuple, got {type(data)}")


def _mean(value: Tensor) -> Tensor:
    """The mean; a single number is its own, which saves two kernels an iteration."""
    return value.mean() if value.dim() else value


def _sum(values: list[Tensor]) -> Any:
    """The sum, without adding to 0 first."""
    return sum(values[1:], start=values[0]) if values else 0
