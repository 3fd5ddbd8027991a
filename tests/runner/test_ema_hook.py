"""EMAHook: the average, where it is used, what a checkpoint holds of it."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from runner.toys import ToyModel, toy_config

from segfast.runner import EMAHook, Hook, Runner, load_checkpoint


class Watch(Hook):
    """Follows the average by hand, and looks at the weights that are validated."""

    priority = "LOWEST"

    def __init__(self, momentum):
        self.momentum, self.average, self.validated = momentum, None, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        weights = flat(runner.model)
        if self.average is None:
            self.average = weights
        else:
            self.average = (1 - self.momentum) * self.average + self.momentum * weights

    def before_val_epoch(self, runner):
        self.validated.append(flat(runner.model))


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).double()


def run(work_dir, hook, **changes):
    hooks = [hook, Watch(hook.momentum)]
    runner = Runner.from_cfg(toy_config(work_dir, custom_hooks=hooks, **changes))
    runner.train()
    return runner, hooks[1]


def test_the_average_is_validated_and_saved(tmp_path):
    runner, watch = run(tmp_path, EMAHook(momentum=0.3))
    torch.testing.assert_close(watch.validated[-1], watch.average, rtol=1e-6, atol=1e-7)
    raw = flat(runner.model)  # swapped back
    assert not torch.allclose(raw, watch.average, atol=1e-4)
    for name in ("iter_20.pth", next(tmp_path.glob("best_*.pth")).name):
        saved = ToyModel()
        saved.load_state_dict(load_checkpoint(tmp_path / name)["state_dict"])
        expected = watch.validated[0 if name.endswith("_10.pth") else -1]
        torch.testing.assert_close(flat(saved), expected, rtol=1e-6, atol=1e-7)
    state = load_checkpoint(tmp_path / "iter_20.pth")["ema_state_dict"]
    assert state["steps"] == 20
    assert torch.equal(state["module.layer.weight"], runner.model.layer.weight.detach())


def test_resume_is_exact(tmp_path):
    hooks = {"checkpoint": {"interval": 9, "max_keep_ckpts": -1}, "visualization": None}
    whole, _ = run(tmp_path / "a", EMAHook(momentum=0.3), default_hooks=hooks)
    again, _ = run(
        tmp_path / "b",
        EMAHook(momentum=0.3),
        default_hooks=hooks,
        resume=True,
        load_from=str(tmp_path / "a/iter_9.pth"),
    )
    assert torch.equal(flat(again.model), flat(whole.model))
    assert again.metrics == whole.metrics


def test_a_fresh_run_starts_from_the_average(tmp_path):
    run(tmp_path / "a", EMAHook(momentum=0.3))
    state = load_checkpoint(tmp_path / "a/iter_20.pth")
    runner = Runner.from_cfg(
        toy_config(
            tmp_path / "b", load_from=str(tmp_path / "a/iter_20.pth"), custom_hooks=[EMAHook()]
        )
    )
    metrics = runner.val()
    assert torch.equal(runner.model.layer.weight.detach(), state["state_dict"]["layer.weight"])
    assert metrics["aAcc"] > 0


def updates(hook, values):
    """The average of one weight that takes these values."""
    model = torch.nn.Linear(1, 1, bias=False)

    class FakeRunner:
        epoch, iter = 0, 0

    FakeRunner.model, found = model, []
    for FakeRunner.iter, value in enumerate(values):
        model.weight.data.fill_(value)
        hook.after_train_iter(FakeRunner, 0)
        found.append(None if hook.average is None else hook.average["weight"].item())
    return found


def test_kinds_interval_and_begin():
    assert updates(EMAHook(momentum=0.5), [1, 3, 3]) == [1, 2, 2.5]
    assert updates(EMAHook("StochasticWeightAverage"), [1, 3, 8]) == [1, 2, 4]
    annealed = updates(EMAHook("MomentumAnnealingEMA", momentum=0.1, gamma=1), [1, 3, 8])
    assert annealed == pytest.approx([1, 2, 4])  # momentum 1/2, then 1/3
    assert updates(EMAHook(momentum=0.5, interval=2), [1, 3, 3, 9]) == [1, 1, 2, 2]
    assert updates(EMAHook(momentum=0.5, begin_iter=3), [1, 3, 5, 9]) == [None, None, 5, 7]
    assert updates(EMAHook(momentum=0.5, begin_epoch=2), [1, 3]) == [None, None]


def test_buffers_are_the_models_unless_asked_for():
    model = torch.nn.BatchNorm1d(1)

    class FakeRunner:
        epoch, iter = 0, 0

    FakeRunner.model = model
    plain, both = EMAHook(momentum=0.5), EMAHook(momentum=0.5, update_buffers=True)
    for value in (1.0, 3.0):
        model.running_mean.fill_(value)
        plain.after_train_iter(FakeRunner, 0)
        both.after_train_iter(FakeRunner, 0)
    assert set(plain.average) == {"weight", "bias"}
    assert both.average["running_mean"].item() == 2.0
    both.before_val_epoch(FakeRunner)
    assert model.running_mean.item() == 2.0
    both.after_val_epoch(FakeRunner)
    assert model.running_mean.item() == 3.0


@pytest.mark.parametrize(("options", "text"), [
    ({"momentum": 1.0}, "momentum must be in range"), ({"interval": 0}, "interval >= 1"),
    ({"begin_iter": 1, "begin_epoch": 1}, "should not be both set"),
    ({"ema_type": "ExponentialMovingAvg"}, r"unknown ema_type .*did you mean ExponentialMovingAverage"),
])  # fmt: skip
def test_wrong_settings(options, text):
    with pytest.raises(ValueError, match=text):
        EMAHook(**options)
