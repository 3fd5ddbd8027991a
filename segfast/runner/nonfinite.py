"""What an optimiser wrapper does about a loss that is NaN or infinite: stop, or take no step."""

# SPDX-License-Identifier: Apache-2.0

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from segfast.distributed import gather, world
from segfast.errors import ConfigError, UserError
from segfast.runner.message_hub import to_numbers

POLICIES = ("stop", "skip")
HINT = (
    "lower optim_wrapper.optimizer.lr, set optim_wrapper.clip_grad=dict(max_norm=1.0), or "
    "optim_wrapper.nonfinite_loss=skip to go on without the step"
)


class NonFiniteLossError(UserError):
    """A loss is NaN or infinite; `value` is the loss."""

    value = math.nan


class StopAtNonFinite:
    """The default: an error.

    On the CPU a loss is there when it is computed, and looked at before the step. On a GPU looking means waiting: the
    LoggerHook does it, where it waits anyway, and names the iteration.
    """

    skipped = 0
    _several: bool | None = None  # processes; asked once, not every iteration

    def before_forward(self, model: nn.Module) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def look(self, loss: Tensor) -> None:
        """Refuse a loss on the CPU; of several processes, all refuse it where it is one's.

        Raises:
            NonFiniteLossError: it is NaN or infinite.
        """
        if not loss.is_cpu:
            return
        total = own = loss.item()
        if self._several is None:
            self._several = world()[1] > 1
        if self._several:
            of_all = loss.detach().clone()
            dist.all_reduce(of_all)
            total = of_all.item()
        if not math.isfinite(total):
            error = NonFiniteLossError(f"the loss is {total} (hint: {HINT})")
            error.value = own
            raise error

    def may_step(self) -> bool:
        """Always."""
        return True


class SkipNonFinite:
    """No optimiser step where a loss of the accumulation group, on any process, is not finite.

    The model's buffers are put back, too: batch-norm statistics that saw NaN would stay NaN. Costs a copy of the
    buffers and one wait for the device per optimiser step.

    Attributes:
        skipped: steps that were not taken.
    """

    IN_A_ROW = 100  # after so many nothing can be expected any more

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.skipped = 0
        self._in_a_row = 0
        self._losses: list[Tensor] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []  # of the model, and as they were
        self._saved: list[Tensor] = []  # as they were, out of a checkpoint

    def before_forward(self, model: nn.Module) -> None:
        """Keep the buffers as they are before an accumulation group."""
        if not self._losses:
            self._buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        elif self._saved:
            self._buffers = list(zip(model.buffers(), self._saved, strict=True))
        self._saved = []

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: of a group that has not ended, the losses of all processes, and the buffers."""
        return {
            "in_a_row": self._in_a_row,
            "losses": [loss for share in gather(to_numbers(self._losses)) for loss in share],
            "buffers": [before.cpu() for _, before in self._buffers] if self._losses else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in such a group."""
        self._in_a_row = state["in_a_row"]
        self._losses = [torch.tensor(loss) for loss in state["losses"]]
        self._saved = state["buffers"]

    def look(self, loss: Tensor) -> None:
        """Remember it."""
        self._losses.append(loss.detach())

    def may_step(self) -> bool:
        """Whether all losses since the last call were finite, everywhere; waits for the device.

        Raises:
            NonFiniteLossError: hundred steps in a row were skipped.
        """
        device = self._losses[-1].device
        bad = ~torch.stack([loss.to(device).isfinite().all() for loss in self._losses]).all()
        self._losses = []
        if world()[1] > 1:
            count = bad.to(torch.int32)
            dist.all_reduce(count)
            bad = count > 0
        if not bad.item():
            self._in_a_row = 0
            return True
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row == self.IN_A_ROW:
            raise NonFiniteLossError(
                f"the loss was not finite for {self.IN_A_ROW} optimiser steps in a row (hint: {HINT.split(', or')[0]})"
            )
        return False


def build_policy(name: str) -> StopAtNonFinite | SkipNonFinite:
    """The policy of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in POLICIES:
        expected = " or ".join(map(repr, POLICIES))
        raise ConfigError("nonfinite_loss", f"expected {expected}, got {name!r}")
    return StopAtNonFinite() if name == "stop" else SkipNonFinite()
