"""BaseModel: construction, steps, the sum of losses, devices."""

# SPDX-License-Identifier: Apache-2.0
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from segfast.errors import ConfigError
from segfast.models import BaseDataPreprocessor, BaseModel


class Toy(BaseModel):
    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        out = self.linear(inputs)
        if mode == "loss":
            return {"loss_a": out, "acc": out.new_full((1,), 50.0)}
        return out if mode == "predict" else ("tensor", out)


class FakeOptim:
    def __init__(self):
        self.loss = self.entered = None

    def optim_context(self, model):
        self.entered = model
        return nullcontext()

    def update_params(self, loss):
        self.loss = loss


def test_constructor_takes_none_config_or_module():
    assert type(Toy().data_preprocessor) is BaseDataPreprocessor
    assert Toy({"type": "BaseDataPreprocessor", "non_blocking": True})
    module = nn.Identity()
    assert Toy(module).data_preprocessor is module
    with pytest.raises(TypeError, match="data_preprocessor should be"):
        Toy(123)
    with pytest.raises(ConfigError, match=r"^data_preprocessor\.mea: .*no such argument"):
        Toy({"type": "SegDataPreProcessor", "mea": 1})


def test_train_step_returns_log_vars_with_the_total_first():
    model, optim = Toy(), FakeOptim()
    log_vars = model.train_step({"inputs": torch.ones(3, 2)}, optim)
    assert list(log_vars) == ["loss", "loss_a", "acc"]
    assert optim.entered is model
    assert optim.loss is log_vars["loss"]
    assert optim.loss.requires_grad
    assert torch.equal(log_vars["loss"], model(torch.ones(3, 2), mode="loss")["loss_a"].mean())


def test_val_and_test_step_return_the_prediction_untouched():
    model, x = Toy(), torch.ones(3, 2)
    assert torch.equal(model.val_step({"inputs": x}), model.linear(x))
    assert torch.equal(model.test_step([x]), model.linear(x))
    assert torch.equal(model.test_step((x, None)), model.linear(x))
    with pytest.raises(TypeError, match="dict, list or tuple"):
        model._run_forward("text", mode="predict")


def test_parse_losses_sums_every_key_with_loss_in_it():
    losses = {
        "decode.acc_seg": torch.tensor([80.0]),
        "aux.myloss_x": torch.tensor([1.0, 3.0]),
        "loss_list": [torch.tensor(1.0), torch.tensor([2.0, 4.0])],
        "LOSS": torch.tensor(100.0),
    }
    total, log_vars = Toy().parse_losses(losses)
    assert total.item() == 2.0 + 1.0 + 3.0
    assert list(log_vars) == ["loss", *losses]
    assert log_vars["loss_list"].item() == 4.0


def test_parse_losses_keeps_upstreams_corner_cases():
    total, log_vars = Toy().parse_losses({"loss": torch.tensor(1.0), "loss_b": torch.tensor(2.0)})
    assert total.item() == 3.0
    assert log_vars["loss"].item() == 1.0
    assert list(log_vars) == ["loss", "loss_b"]
    total, log_vars = Toy().parse_losses({"loss_empty": []})
    assert total == 0
    assert log_vars["loss_empty"] == 0


@pytest.mark.parametrize("bad", [1.0, 1, None, (torch.ones(1),), {"a": torch.ones(1)}, [1.0]])
def test_parse_losses_rejects_everything_else(bad):
    with pytest.raises(TypeError, match="loss_bad"):
        Toy().parse_losses({"loss_bad": bad})


def test_devices_reach_every_nested_preprocessor():
    model = Toy()
    model.inner = Toy()
    meta = torch.device("meta")
    model.to(torch.float64)
    assert model.linear.weight.dtype == torch.float64
    assert model.data_preprocessor.device == torch.device("cpu")
    for arguments in ((meta,), (meta, torch.float32), ("meta",)):
        other = Toy()
        other.inner = Toy()
        other.to(*arguments)
        assert other.inner.data_preprocessor.device == meta
    model.to(device="meta")
    assert model.data_preprocessor.device == meta
    assert model.inner.data_preprocessor.device == meta
    fresh = Toy()
    fresh._set_device(meta)
    assert fresh.cpu().data_preprocessor.device == torch.device("cpu")


@pytest.mark.cuda
def test_cuda_moves_model_and_batches():
    model = Toy().cuda()
    assert model.data_preprocessor.device == torch.device("cuda")
    assert model.val_step({"inputs": torch.ones(3, 2)}).is_cuda
