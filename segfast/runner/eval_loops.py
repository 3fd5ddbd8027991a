"""The validation and test loops: predict, hand over to the evaluator, and wait for the device once, at the end."""

# SPDX-License-Identifier: Apache-2.0

from typing import Any

import torch
from torch.utils.data import DataLoader

from segfast.distributed import gather, mean_of_all
from segfast.errors import ConfigError
from segfast.models.distributed import FSDP, unwrapped
from segfast.ops import check_labels
from segfast.registry import LOOPS
from segfast.runner.prefetch import fetch_ahead
from segfast.runner.wrap import same_buffers
from segfast.structures import BaseDataElement


class _EvalLoop:
    """What validation and testing share; `mode` is "val" or "test".

    Args:
        runner: the Runner.
        dataloader: the data.
        evaluator: an Evaluator.
        fp16: predict under autocast.
        prefetch: on CUDA, fetch the next batch from the workers and send it while this one computes.
    """

    mode = ""

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader,
        evaluator: Any,
        fp16: bool = False,
        prefetch: bool = True,
    ) -> None:
        self.runner, self.dataloader, self.evaluator = runner, dataloader, evaluator
        self.fp16, self.prefetch = fp16, prefetch
        self.dataset_meta = getattr(dataloader.dataset, "metainfo", None)
        evaluator.dataset_meta = self.dataset_meta
        self._losses: dict[str, list[torch.Tensor]] = {}
        self._in_step = len(set(gather(len(dataloader)))) == 1  # as many batches in every process
        if not self._in_step and isinstance(runner.model, FSDP):
            problem = "the processes get different numbers of batches, FSDP needs the same"
            raise ConfigError(f"{self.mode}_dataloader.sampler", f"{problem} (hint: round_up=True)")

    def run(self) -> dict:
        """All batches, then the metrics: the one place that waits for the device."""
        self.runner.call_hook(f"before_{self.mode}")
        self.runner.call_hook(f"before_{self.mode}_epoch")
        same_buffers(self.runner.model)  # averages that hooks have put in, too
        self.runner.model.eval()
        with fetch_ahead(self.dataloader, unwrapped(self.runner.model), self.prefetch) as batches:
            for batch_idx, data_batch in enumerate(batches):
                self.run_iter(batch_idx, data_batch)
        check_labels()
        metrics = self.evaluator.evaluate(len(self.dataloader.dataset))  # type: ignore[arg-type]
        metrics = {**metrics, **self._mean_losses()}
        self.runner.metrics = metrics
        self.runner.call_hook(f"after_{self.mode}_epoch", metrics=metrics)
        self.runner.call_hook(f"after_{self.mode}")
        return metrics

    @torch.no_grad()
    def run_iter(self, batch_idx: int, data_batch: Any) -> None:
        """One batch: predict, hand to the evaluator."""
        self.runner.call_hook(
            f"before_{self.mode}_iter", batch_idx=batch_idx, data_batch=data_batch
        )
        with torch.autocast(self.runner.device.type, enabled=self.fp16):
            outputs = getattr(self.runner.model, f"{self.mode}_step")(data_batch)
        outputs = self._without_losses(outputs)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            f"after_{self.mode}_iter", batch_idx=batch_idx, data_batch=data_batch, outputs=outputs
        )
        if self._in_step:
            self.runner.stop.check()

    def _without_losses(self, outputs: Any) -> Any:
        """The predictions; a last sample that holds nothing but `loss`, a dict, is kept aside."""
        last = outputs[-1] if isinstance(outputs, (list, tuple)) and outputs else None
        if not isinstance(last, BaseDataElement) or list(last.keys()) != ["loss"]:
            return outputs
        for name, value in last.loss.items():  # type: ignore[attr-defined]
            parts = value if isinstance(value, list) else [value]
            self._losses.setdefault(name, []).extend(part.mean() for part in parts)
        return outputs[:-1]

    def _mean_losses(self) -> dict[str, float]:
        """The means over the batches, and the sum of those whose name contains "loss", as `val_loss`."""
        means = {name: torch.stack(values).mean().item() for name, values in self._losses.items()}
        means = mean_of_all(means)
        if means:
            means[f"{self.mode}_loss"] = sum(v for name, v in means.items() if "loss" in name)
        self._losses = {}
        return means


@LOOPS.register_module()
class ValLoop(_EvalLoop):
    """Validation."""

    mode = "val"


@LOOPS.register_module()
class TestLoop(_EvalLoop):
    """Testing."""

    mode = "test"
    __test__ = False  # not a test class, whatever pytest thinks of its name
