"""OptimWrapperDict: several optimisers by name, for models whose parts take turns."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import ItemsView, KeysView, ValuesView
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from segfast.registry import OPTIM_WRAPPERS
from segfast.runner.optim import OptimWrapper


@OPTIM_WRAPPERS.register_module()
class OptimWrapperDict:
    """Optimiser wrappers by name; the model's `train_step` says which one steps.

    Args:
        wrappers: name=OptimWrapper.
    """

    grad_norm: Tensor | None = None  # each wrapper has its own

    def __init__(self, **wrappers: OptimWrapper) -> None:
        """Take the wrappers.

        Raises:
            TypeError: something else than wrappers was given.
        """
        for name, wrapper in wrappers.items():
            if not isinstance(wrapper, OptimWrapper):
                raise TypeError(f"expected {name} to be an OptimWrapper, got {type(wrapper)}")
        self._wrappers = wrappers

    def __getitem__(self, name: str) -> OptimWrapper:
        """The wrapper of that name."""
        return self._wrappers[name]

    def __contains__(self, name: str) -> bool:
        """Whether there is a wrapper of that name."""
        return name in self._wrappers

    def __len__(self) -> int:
        """How many there are."""
        return len(self._wrappers)

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._wrappers.keys()

    def values(self) -> ValuesView[OptimWrapper]:
        """The wrappers."""
        return self._wrappers.values()

    def items(self) -> ItemsView[str, OptimWrapper]:
        """Names and wrappers."""
        return self._wrappers.items()

    def update_params(self, loss: Tensor, *_: Any, **__: Any) -> None:
        """Refused: which of them should step?"""
        raise NotImplementedError(
            f"there are several optimisers: call optim_wrapper[{next(iter(self._wrappers), '')!r}].update_params(loss) "
            "and so on in the model's train_step"
        )

    def optim_context(self, model: nn.Module) -> AbstractContextManager:
        """Refused, as `update_params`."""
        raise NotImplementedError("call optim_wrapper[name].optim_context(model) in train_step")

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """To every wrapper."""
        for wrapper in self.values():
            wrapper.initialize_count_status(model, init_counts, max_counts)

    def get_lr(self) -> dict[str, list[float]]:
        """{"name.lr": [...], "name.base_lr": [...]}."""
        return {
            f"{name}.{key}": value
            for name, wrapper in self.items()
            for key, value in wrapper.get_lr().items()
        }

    def get_momentum(self) -> dict[str, list[float]]:
        """{"name.momentum": [...], ...}."""
        return {
            f"{name}.{key}": value
            for name, wrapper in self.items()
            for key, value in wrapper.get_momentum().items()
        }

    @property
    def param_groups(self) -> list[dict]:
        """Those of all wrappers."""
        return [group for wrapper in self.values() for group in wrapper.param_groups]

    def state_dict(self) -> dict:
        """Each wrapper's, by name."""
        return {name: wrapper.state_dict() for name, wrapper in self.items()}

    def load_state_dict(self, state: dict) -> None:
        """Into each wrapper."""
        for name, part in state.items():
            self._wrappers[name].load_state_dict(part)


def wrappers(wrapper: Any) -> list[Any]:
    """The wrappers of a training: one, or those in a dict; of other packages they may be anything."""
    return list(wrapper.values()) if hasattr(wrapper, "values") else [wrapper]


def optimizer_names(wrapper: Any) -> str:
    """The classes of the optimisers."""
    found = [getattr(part, "optimizer", part) for part in wrappers(wrapper)]
    return ", ".join(type(optimizer).__name__ for optimizer in found)


def base_lr(wrapper: Any) -> float:
    """The learning rate before any multiplier; of several optimisers the first one's."""
    rates = wrapper.get_lr()
    return next(
        (rates[key][0] for key in rates if key.endswith("base_lr")), next(iter(rates.values()))[0]
    )
