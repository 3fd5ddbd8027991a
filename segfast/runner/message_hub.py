"""MessageHub: what hooks and models tell the log. Values stay on the device until a line is due."""

# SPDX-License-Identifier: Apache-2.0

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Optional

import torch
from torch import Tensor


class Scalar:
    """The values of one name since the last log line, tensors on their device."""

    KEPT = 10_000  # of a name that nobody takes, the newest

    def __init__(self) -> None:
        """No values yet."""
        self.values: deque[Any] = deque(maxlen=self.KEPT)
        self.last: Any = None  # outlives the line

    def current(self) -> float:
        """The newest value; waits for the device."""
        return float(self.last)

    def mean(self, window: int | None = None) -> float:
        """Mean of the newest `window` values since the last line, or of all; waits for the device."""
        values = list(self.values)[-window:] if window else list(self.values)
        return sum(to_numbers(values)) / max(len(values), 1)


class Followed(Scalar):
    """A value that is read when somebody asks; it has no history, and log lines leave it out."""

    KEPT = 0

    def __init__(self, read: Callable[[], float]) -> None:
        """Take the function that reads it."""
        super().__init__()
        self.read = read

    def current(self) -> float:
        """What it is now."""
        return float(self.read())

    def mean(self, window: int | None = None) -> float:
        """The same."""
        return self.current()


class MessageHub:
    """Scalars by name (`train/loss`) and plain facts (`iter`, `epoch`, `max_iters`)."""

    _current: Optional["MessageHub"] = None  # the newest

    def __init__(self) -> None:
        """Start empty."""
        self.scalars: dict[str, Scalar] = {}
        self.runtime_info: dict[str, Any] = {}
        self._not_resumed: set[str] = set()
        MessageHub._current = self

    @classmethod
    def get_current_instance(cls) -> "MessageHub":
        """The newest hub, a Runner's if there is one: for code that does not know the Runner."""
        return MessageHub._current or cls()

    @property
    def log_scalars(self) -> dict[str, Scalar]:
        """MMEngine's name of `scalars`."""
        return self.scalars

    @property
    def resumed_keys(self) -> dict[str, bool]:
        """By name, whether a checkpoint takes it along; facts are told anew."""
        facts = dict.fromkeys(self.runtime_info, False)
        return facts | {name: self._is_resumed(name) for name in self.scalars}

    def follow(self, name: str, read: Callable[[], float]) -> None:
        """Let `get_scalar(name).current()` be what `read` returns then; costs nothing until somebody asks."""
        self.scalars[name] = Followed(read)

    def update_scalar(self, name: str, value: Any, count: int = 1, resumed: bool = True) -> None:
        """Add a value: a number, or a 0-d tensor, which is not waited for.

        Without `resumed` checkpoints leave it out; `count` is for callers.
        """
        if not resumed:
            self._not_resumed.add(name)
        scalar = self.scalars.get(name)
        if scalar is None:
            scalar = self.scalars[name] = Scalar()
        scalar.last = value.detach() if isinstance(value, Tensor) else value
        scalar.values.append(scalar.last)

    def update_scalars(self, values: Mapping[str, Any], resumed: bool = True) -> None:
        """Add several: numbers, tensors, or dict(value=..., count=...)."""
        for name, value in values.items():
            number = value["value"] if isinstance(value, Mapping) else value
            self.update_scalar(name, number, resumed=resumed)

    def get_scalar(self, name: str) -> Scalar:
        """The values of that name.

        Raises:
            KeyError: nobody has added one.
        """
        if name not in self.scalars:
            raise KeyError(f"no scalar {name!r}, there are {', '.join(self.scalars) or 'none'}")
        return self.scalars[name]

    def update_info(self, name: str, value: Any, resumed: bool = True) -> None:
        """Set a fact."""
        self.runtime_info[name] = value

    def update_info_dict(self, facts: Mapping[str, Any], resumed: bool = True) -> None:
        """Set several facts."""
        self.runtime_info.update(facts)

    def pop_info(self, name: str, default: Any = None) -> Any:
        """Forget a fact; what it was, or the default."""
        return self.runtime_info.pop(name, default)

    def get_info(self, name: str, default: Any = None) -> Any:
        """A fact, or the default."""
        return self.runtime_info.get(name, default)

    def pending(self) -> dict[str, list[float]]:
        """What the next log line will average, and earlier metrics, as numbers, for a checkpoint."""
        return {
            name: to_numbers(scalar.values)
            for name, scalar in self.scalars.items()
            if scalar.values and self._is_resumed(name)
        }

    def resume(self, pending: Mapping[str, list[float]]) -> None:
        """Take over what another run's hub had pending."""
        self.scalars = {}
        for name, values in pending.items():
            for value in values:
                self.update_scalar(name, value)

    def _is_resumed(self, name: str) -> bool:
        return name not in self._not_resumed and not isinstance(self.scalars[name], Followed)

    def take(
        self, prefix: str, window: int | None = None, finite: bool = False
    ) -> dict[str, float]:
        """Means of everything under a prefix since it was last taken, in one transfer per device.

        Args:
            prefix: `train/`; it is left out of the names that are returned.
            window: only the newest values count.
            finite: leave NaN and infinity out of the means, unless there is nothing else.
        """
        taken: dict[str, list[Any]] = {}
        for name, scalar in self.scalars.items():
            if name.startswith(prefix) and scalar.values:
                newest = list(scalar.values)
                taken[name.removeprefix(prefix)] = newest[-window:] if window else newest
                scalar.values.clear()
        numbers = iter(to_numbers([value for values in taken.values() for value in values]))
        fetched = {
            name: list(itertools.islice(numbers, len(values))) for name, values in taken.items()
        }
        if finite:
            fetched = {
                name: [v for v in values if math.isfinite(v)] or values
                for name, values in fetched.items()
            }
        return {name: sum(values) / len(values) for name, values in fetched.items()}


def only_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are single numbers, of any library's type; tables and texts are left out."""
    found = {}
    for name, value in metrics.items():
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            if not isinstance(value, (str, bytes)):
                found[name] = float(value)
    return found


def to_numbers(values: Iterable[Any]) -> list[float]:
    """Numbers and 0-d tensors as numbers; one transfer per device that is not the CPU."""
    numbers: list[Any] = [v.item() if isinstance(v, Tensor) and v.is_cpu else v for v in values]
    tensors: dict[torch.device, list[int]] = {}  # device -> places in `numbers`
    for place, value in enumerate(numbers):
        if isinstance(value, Tensor):
            tensors.setdefault(value.device, []).append(place)
    for places in tensors.values():
        fetched = torch.stack([numbers[place].reshape(()) for place in places]).tolist()
        for place, number in zip(places, fetched, strict=True):
            numbers[place] = number
    return numbers
