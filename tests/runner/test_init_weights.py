"""When `init_weights` of a model and of its parts is called, and what comes behind it."""

# SPDX-License-Identifier: Apache-2.0

import torch
from runner.toys import ToyModel, toy_config
from torch import nn

from segfast.runner import Runner

FEW = {"train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 2, "val_interval": 2}}


class Part(nn.Module):
    """A part as MMEngine's are: `init_cfg`, `is_init`, `init_weights`."""

    def __init__(self, init_cfg="mine"):
        super().__init__()
        self.init_cfg, self.is_init, self.calls = init_cfg, False, 0
        self.inner = ForeignPart()

    def init_weights(self):
        self.calls += 1


class ForeignPart(nn.Module):
    """A part as timm's are: the method would throw pretrained weights away."""

    def init_weights(self):
        raise AssertionError("nobody should call this")


class InParts(ToyModel):
    def __init__(self):
        super().__init__()
        self.part, self.foreign = Part(), ForeignPart()
        self.deep = nn.ModuleList([nn.Sequential(Part()), Part()])
        self.deep[1].is_init = True


class Filled(ToyModel):
    """Initialises itself, and its parts as MMEngine's classes do."""

    def __init__(self):
        super().__init__(dropout=0.0)
        self.part, self.calls = Part(), []

    def init_weights(self):
        super().init_weights()
        self.calls.append(self.layer.weight[0, 0].item())
        nn.init.constant_(self.layer.weight, 7.0)


def run(work_dir, model, **changes):
    changes = {"optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.0}}} | FEW | changes
    runner = Runner.from_cfg(toy_config(work_dir, model={"type": model}, **changes))
    runner.train()
    return runner


def test_parts_are_initialised_where_the_model_says_nothing(tmp_path):
    model = run(tmp_path, InParts).model
    assert (model.part.calls, model.deep[0][0].calls, model.deep[1].calls) == (1, 1, 0)


def test_the_models_own_comes_once_and_before_training(tmp_path):
    runner = run(tmp_path, Filled)
    assert len(runner.model.calls) == runner.model.part.calls == 1
    assert torch.equal(runner.model.layer.weight.detach(), torch.full((1, 2), 7.0))
    runner.train()
    assert len(runner.model.calls) == 1


def test_loaded_weights_replace_the_initial_ones(tmp_path):
    torch.save({"state_dict": {"layer.weight": torch.ones(1, 2)}}, tmp_path / "a.pth")
    model = run(tmp_path / "run", Filled, load_from=tmp_path / "a.pth").model
    assert len(model.calls) == 1
    assert torch.equal(model.layer.weight.detach(), torch.ones(1, 2))


def test_a_resumed_run_has_its_weights(tmp_path):
    run(tmp_path, Filled)
    more = {"train_cfg": FEW["train_cfg"] | {"max_iters": 4}}
    assert run(tmp_path, Filled, resume=True, **more).model.calls == []
    assert len(run(tmp_path / "new", Filled, resume=True).model.calls) == 1  # nothing to resume


def test_validation_leaves_the_weights_alone(tmp_path):
    runner = Runner.from_cfg(toy_config(tmp_path, model={"type": Filled}))
    runner.val()
    assert runner.model.calls == []
    runner.train()
    assert len(runner.model.calls) == 1
