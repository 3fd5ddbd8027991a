"""TestTimeAug: several versions of one sample, for a model that merges what it says about them."""

# SPDX-License-Identifier: Apache-2.0
import copy
import itertools
from collections.abc import Callable, Sequence

from segfast.datasets.transforms.base import BaseTransform, Compose
from segfast.errors import ConfigError, DataError
from segfast.registry import TRANSFORMS


@TRANSFORMS.register_module()
class TestTimeAug(BaseTransform):
    """Run every combination of steps on a sample; its values become lists over the combinations.

    With `pseudo_collate` a batch is then dict(inputs=[[image of every sample] of every version],
    data_samples=[[...], ...]), which `SegTTAModel` takes.

    Args:
        transforms: lists of alternatives, in the order in which they run. [[small, large],
            [as it is, flipped], [pack]] makes four versions: small, small flipped, large, large
            flipped.

    Raises:
        ConfigError: `transforms` is no list of lists of steps, or one of them is empty.
    """

    __test__ = False  # for pytest: the name looks like a test's

    def __init__(self, transforms: Sequence[Sequence[dict | Callable]]) -> None:
        """Build every step once."""
        alternatives = [
            [
                TRANSFORMS.build(step, path=f"transforms.{place}.{number}")
                for number, step in enumerate(_steps(steps, place))
            ]
            for place, steps in enumerate(transforms)
        ]
        self.transforms = alternatives
        self.subroutines = [Compose(steps) for steps in itertools.product(*alternatives)]

    def transform(self, results: dict) -> dict:
        """Run all combinations, each on a copy of `results`; random ones share its generator.

        Raises:
            DataError: a step rejects the sample; a test counts every image.
        """
        rng = results.get("rng")
        versions = []
        for steps in self.subroutines:
            # The memo says that the generator is its own copy.
            version = steps(copy.deepcopy(results, {id(rng): rng}))
            if version is None:
                path = results.get("img_path")
                raise DataError(f"{path}: a step of TestTimeAug returned nothing for this image")
            versions.append(version)
        return {key: [version[key] for version in versions] for key in versions[0]}

    def __repr__(self) -> str:
        """One combination after the other."""
        steps = "".join(f"\n{step!r}" for step in self.subroutines)
        return f"{type(self).__name__}(transforms={steps}\n)"


def _steps(steps: Sequence, place: int) -> Sequence:
    """One list of alternatives, checked."""
    if not isinstance(steps, list | tuple) or not steps:
        problem = f"expected a list of at least one step, alternatives to each other, got {steps!r}"
        raise ConfigError(f"transforms.{place}", problem)
    return steps
