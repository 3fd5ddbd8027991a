"""MMDistributedDataParallel: a model in several processes, called as one in a single process is."""

# SPDX-License-Identifier: Apache-2.0
from typing import Any

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from segfast.models.base import run_forward
from segfast.registry import MODELS


@MODELS.register_module()
class MMDistributedDataParallel(DistributedDataParallel):
    """torch's DistributedDataParallel with the steps of a `BaseModel`.

    The preprocessor and the sum of losses are the model's own; the forward pass of training goes through this wrapper,
    which averages gradients over the processes. Arguments are those of torch's class.
    """

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """As `BaseModel.train_step`; `optim_wrapper.optim_context` may hold back the exchange of gradients."""
        with optim_wrapper.optim_context(self):
            data = self.module.data_preprocessor(data, True)
            losses = run_forward(self, data, mode="loss")
        total, log_vars = self.module.parse_losses(losses)
        optim_wrapper.update_params(total)
        return log_vars

    def val_step(self, data: Any) -> Any:
        """The model's own: there are no gradients to exchange."""
        return self.module.val_step(data)

    def test_step(self, data: Any) -> Any:
        """The model's own."""
        return self.module.test_step(data)
