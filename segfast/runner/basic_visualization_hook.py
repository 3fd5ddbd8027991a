"""BasicVisualizationHook: hands samples to the visualizer."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

from segfast.errors import ConfigError
from segfast.registry import HOOKS
from segfast.runner.hooks import Hook


@HOOKS.register_module()
class BasicVisualizationHook(Hook):
    """Calls `visualizer.add_datasample(sample, step=iteration)` for the samples of a batch.

    Args:
        interval: of every so many batches; an int, or a dict by mode ("train", "val", "test"), 1 where it says nothing.
        on_train: draw in training, where outputs are a list of samples.
        on_val: draw in validation.
        on_test: draw in testing.
    """

    def __init__(
        self,
        interval: int | Mapping[str, int] = 1,
        on_train: bool = False,
        on_val: bool = True,
        on_test: bool = True,
    ) -> None:
        """Take the settings."""
        self.interval = interval
        self.modes = {"train": on_train, "val": on_val, "test": on_test}

    def before_run(self, runner: Any) -> None:
        """Fail before the training rather than after it.

        Raises:
            ConfigError: there is no visualizer that draws samples.
        """
        if not hasattr(runner.visualizer, "add_datasample"):
            raise ConfigError("visualizer", "missing, BasicVisualizationHook draws with it")

    def _after_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = "train",
    ) -> None:
        interval = self.interval
        every = interval.get(mode, 1) if isinstance(interval, Mapping) else interval
        if self.modes[mode] and self.every_n_inner_iters(batch_idx, every):
            for sample in outputs:
                runner.visualizer.add_datasample(sample, step=runner.iter)
