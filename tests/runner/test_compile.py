"""`compile=`: the forward pass of training through torch.compile, and nothing else."""

# SPDX-License-Identifier: Apache-2.0

import copy
import sys
from pathlib import Path

import pytest
import torch
from runner.toys import ToyModel, toy_config

from segfast.errors import ConfigError
from segfast.runner import Runner

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))
from blocks import config as blocks_config


class Counting:
    """A backend that runs graphs as they are, and counts them and their calls."""

    def __init__(self):
        self.graphs = self.calls = 0

    def __call__(self, graph, inputs):
        self.graphs += 1

        def call(*args):
            self.calls += 1
            return graph.forward(*args)

        return call


@pytest.fixture(autouse=True)
def _afresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def run(config, **changes):
    runner = Runner.from_cfg(config, **changes)
    runner.train()
    return runner


def weights(runner):
    return torch.cat([p.detach().flatten() for p in runner.model.parameters()])


def test_a_segmentor_is_one_graph_and_trains_the_same(tmp_path):
    backend = Counting()
    plain = run(blocks_config(tmp_path / "plain"))
    runner = run(blocks_config(tmp_path / "compiled"), compile={"backend": backend})
    assert (backend.graphs, backend.calls) == (1, runner.iter)  # and none in validation
    assert torch.equal(weights(runner), weights(plain))
    assert runner.metrics == plain.metrics
    state = torch.load(tmp_path / "compiled" / "iter_6.pth", weights_only=True)["state_dict"]
    assert list(state) == list(plain.model.state_dict())
    assert "the model is compiled" in (tmp_path / "compiled" / "log.txt").read_text()


def test_a_copy_is_not_compiled(tmp_path):
    backend = Counting()
    runner = run(toy_config(tmp_path), compile={"backend": backend})
    copied, calls = copy.deepcopy(runner.model), backend.calls
    assert calls == 20
    copied.train()([torch.zeros(2)])
    assert backend.calls == calls


@pytest.mark.parametrize("value", [None, False])
def test_nothing_is_compiled_unless_asked_for(tmp_path, monkeypatch, value):
    monkeypatch.setattr(torch, "compile", None)
    run(toy_config(tmp_path), compile=value)


def test_true_means_the_defaults(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(torch, "compile", lambda call, **options: given.append(options) or call)
    run(toy_config(tmp_path), compile=True)
    assert given == [{}]


class OwnStep(ToyModel):
    def train_step(self, data, optim_wrapper):
        return super().train_step(data, optim_wrapper)


def test_a_train_step_of_its_own_is_told(tmp_path):
    run(toy_config(tmp_path, model={"type": OwnStep}), compile={"backend": "eager"})
    assert "compile: OwnStep has a train_step of its own" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(("value", "text"), [
    ("inductor", r"^compile: expected True, or dict\(backend=...\) .*got 'inductor'"),
    ({"backnd": "eager"}, r"^compile: .*unexpected keyword argument 'backnd'"),
    ({"mode": "fastest"}, r"^compile: .*fastest"),
])  # fmt: skip
def test_what_is_refused(tmp_path, value, text):
    with pytest.raises(ConfigError, match=text):
        Runner.from_cfg(toy_config(tmp_path), compile=value)


def test_keys_that_do_nothing_are_told(tmp_path):
    keys = {"activation_checkpointing": ["layer"], "efficient_conv_bn_eval": ["[all]"]}
    Runner.from_cfg(toy_config(tmp_path / "a", **keys, runner_type="FlexibleRunner"))
    text = (tmp_path / "a" / "log.txt").read_text()
    for key in (*keys, "runner_type"):
        assert f"warning: {key}=" in text
    Runner.from_cfg(toy_config(tmp_path / "b", runner_type="Runner", efficient_conv_bn_eval=None))
    assert not (tmp_path / "b" / "log.txt").exists()
