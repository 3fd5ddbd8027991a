"""SilentVisualizer: what processes other than the first draw with."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any


class SilentVisualizer:
    """Takes any call, does nothing, returns None."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        """A function that does nothing."""
        if name.startswith("__"):
            raise AttributeError(name)
        return _nothing


def _nothing(*_: Any, **__: Any) -> None:
    """Draw nothing."""
