"""ParamScheduler: one of torch's schedulers within a window of the training.

Between `begin` and `end` a scheduler changes the present value; outside it leaves it alone. So schedulers can follow
each other (warm-up, then decay), overlap, and leave gaps. Endpoints are MMEngine's: a window of n steps has n - 1
intervals, its last step runs at the end value.
"""

# SPDX-License-Identifier: Apache-2.0

from typing import Any

import torch

FOREVER = 10**9  # `end` of a scheduler that nobody told where training ends


class ParamScheduler:
    """Base of all schedulers: one of torch's, on stand-ins for the optimiser's groups.

    At `begin` the torch scheduler is made over the values of that moment. At each step of the window the groups' values
    go into the stand-ins, the torch scheduler steps, and the values come back.

    Args:
        optimizer: a torch optimiser or an OptimWrapper.
        begin: first step of this scheduler, in epochs or iterations.
        end: first step after it; None means the end of training (the Runner fills it in).
        by_epoch: steps are epochs, otherwise iterations.
        param_name: the key of `param_groups` that is scheduled, "lr" by default; "momentum" is the first beta where
            the optimiser has betas.
    """

    param_name = "lr"
    need_val_args = False  # stepped by iterations or epochs, not with the metrics of a validation
    epoch_arguments: tuple[str, ...] = ()  # arguments beside begin and end that count epochs

    def __init__(
        self,
        optimizer: Any,
        begin: int = 0,
        end: int | None = None,
        by_epoch: bool = True,
        param_name: str | None = None,
    ) -> None:
        """Remember the values to start from and set the first step's.

        Raises:
            ValueError: an empty window, or an optimiser without the parameter.
        """
        end = FOREVER if end is None else end
        if end <= begin:
            raise ValueError(f"expected end > begin, got begin={begin}, end={end}")
        self.optimizer = optimizer
        self.begin, self.end, self.by_epoch = begin, end, by_epoch
        self.param_name = param_name or self.param_name
        self._initial = f"initial_{self.param_name}"
        for group in optimizer.param_groups:
            group.setdefault(self._initial, self._read(group))
        self.last_step = -1
        self._start()  # whatever is wrong with the arguments shows now
        self.step()

    def make(self, stand_in: torch.optim.Optimizer) -> Any:
        """The torch scheduler over `stand_in`, whose groups hold present values and `initial_lr`."""
        raise NotImplementedError

    def offset(self, initial: float) -> float:
        """What is taken off a group's values while torch's scheduler works on them: the value it decays to."""
        return 0.0

    def step(self) -> None:
        """Advance by one and set the parameter of every group."""
        self.last_step += 1
        if self.last_step == self.begin:
            self._start()
            self._write_back()
        elif self.begin < self.last_step < self.end:
            self._advance()

    def state_dict(self) -> dict:
        """Everything that `load_state_dict` needs, as plain values."""
        return {"last_step": self.last_step, "scheduler": self._scheduler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Continue where another instance stopped; the optimiser's state has to be loaded, too."""
        self.last_step = state["last_step"]
        self._scheduler.load_state_dict(state["scheduler"])

    def _start(self) -> None:
        """Make the stand-ins and torch's scheduler, which sets the first step's values."""
        groups = []
        self._offsets = []  # one per group
        for group in self.optimizer.param_groups:
            initial = group[self._initial]
            offset = self.offset(initial)
            self._offsets.append(offset)
            parameters = [torch.nn.Parameter(torch.empty(0))]
            value = self._read(group) - offset
            groups.append({"params": parameters, "lr": value, "initial_lr": initial - offset})
        self._stand_in = torch.optim.SGD(groups, lr=0.0)
        self._scheduler = self.make(self._stand_in)
        self._stand_in.step()  # torch's schedulers warn of optimisers that never step

    def _advance(self, *metrics: float) -> None:
        """Step torch's scheduler from the groups' present values, which others may have changed."""
        groups, stand_ins = self.optimizer.param_groups, self._stand_in.param_groups
        for i, offset in enumerate(self._offsets):
            stand_ins[i]["lr"] = self._read(groups[i]) - offset
        self._scheduler.step(*metrics)
        self._write_back()

    def _write_back(self) -> None:
        groups, stand_ins = self.optimizer.param_groups, self._stand_in.param_groups
        for i, offset in enumerate(self._offsets):
            value = stand_ins[i]["lr"] + offset
            if self.param_name == "momentum" and "betas" in groups[i]:
                groups[i]["betas"] = (value, *groups[i]["betas"][1:])
            else:
                groups[i][self.param_name] = value

    def _read(self, group: dict) -> float:
        if self.param_name == "momentum" and "betas" in group:
            return group["betas"][0]
        if self.param_name not in group:
            raise ValueError(f"the optimizer has no {self.param_name} to schedule")
        return group[self.param_name]


class DecayToMinimum(ParamScheduler):
    """What decays to `eta_min`, or to `eta_min_ratio` times the initial value."""

    def __init__(
        self,
        optimizer: Any,
        eta_min: float | None = None,
        eta_min_ratio: float | None = None,
        **window: Any,
    ) -> None:
        """Take the end value."""
        if eta_min is not None and eta_min_ratio is not None:
            raise ValueError("expected eta_min or eta_min_ratio, not both")
        self.eta_min, self.eta_min_ratio = eta_min or 0.0, eta_min_ratio
        super().__init__(optimizer, **window)

    def offset(self, initial: float) -> float:
        """The value that is decayed to."""
        return self.eta_min if self.eta_min_ratio is None else initial * self.eta_min_ratio
