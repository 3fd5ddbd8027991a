"""BaseTransform and Compose: a pipeline is a list of dict -> dict steps."""

# SPDX-License-Identifier: Apache-2.0
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from segfast.registry import TRANSFORMS


class BaseTransform(ABC):
    """One step of a pipeline.

    A step reads and changes the `results` dict of one sample: `img` (H, W, C) BGR or (H, W),
    `gt_seg_map` (H, W) and every other map named in `seg_fields`, and what is known about them.
    """

    def __call__(self, results: dict) -> dict | None:
        """Run the step."""
        return self.transform(results)

    @abstractmethod
    def transform(self, results: dict) -> dict | None:
        """Change `results` and return it, or None to have the sample replaced by another."""


class Compose(BaseTransform):
    """Steps run one after the other.

    Args:
        transforms: configs, or callables from dict to dict.
    """

    def __init__(self, transforms: Sequence[dict | Callable]) -> None:
        """Build every step."""
        self.transforms = [
            TRANSFORMS.build(step, path=f"pipeline.{place}")
            for place, step in enumerate(transforms)
        ]

    def transform(self, results: dict) -> dict | None:
        """Run the steps; None from one of them ends the run."""
        current: dict | None = results
        for step in self.transforms:
            current = step(current)
            if current is None:
                return None
        return current

    def __repr__(self) -> str:
        """One step a line."""
        steps = "".join(f"\n    {step}" for step in self.transforms)
        return f"{type(self).__name__}({steps}\n)"


def generator_of(results: dict) -> np.random.Generator:
    """The sample's random generator, or an unseeded one outside of a dataset."""
    return results.get("rng") or np.random.default_rng()


def as_writable(array: np.ndarray) -> np.ndarray:
    """The array in C order and writable, as torch.from_numpy wants it; copied only if it must be."""
    return np.require(array, requirements=["C", "W"])


def seg_fields(results: dict) -> list[str]:
    """Names of the maps that follow the image's geometry."""
    return [name for name in results.get("seg_fields", []) if results.get(name) is not None]


def describe(step: Any, *names: str) -> str:
    """`Name(arg=value, ...)` from the step's attributes."""
    return f"{type(step).__name__}({', '.join(f'{n}={getattr(step, n)!r}' for n in names)})"
