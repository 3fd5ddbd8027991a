"""Which hooks are called where: those that override a point or the generic one behind it, and no others."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from runner.toys import toy_config

from segfast.runner import Hook, IterTimerHook, MessageHub, Runner, RuntimeInfoHook
from segfast.runner.hooks import STAGES, acts_at


class EveryIter(Hook):
    """Overrides a generic point only."""

    def __init__(self):
        self.modes = []

    def _after_iter(self, runner, batch_idx, data_batch=None, outputs=None, mode="train"):
        self.modes.append(mode)


class NoHook:
    """Has the method, not the base class."""

    def after_train_iter(self, runner, **_):
        pass


@pytest.mark.parametrize(
    ("hook", "stages"),
    [
        (Hook(), set()),
        (EveryIter(), {"after_train_iter", "after_val_iter", "after_test_iter"}),
        (
            IterTimerHook(),
            {"before_train_epoch", "before_train_iter", "after_train_iter", "after_val"}
            | {
                f"{at}_{mode}_{unit}"
                for at in ("before", "after")
                for mode in ("val", "test")
                for unit in ("iter", "epoch")
            },
        ),
    ],
)
def test_a_hook_acts_where_it_overrides(hook, stages):
    assert {stage for stage in STAGES if acts_at(hook, stage)} == stages


def test_a_hook_without_the_base_class_acts():
    assert acts_at(NoHook(), "after_train_iter")


def test_a_hook_registered_during_training_is_called(tmp_path):
    late = EveryIter()

    class Registers(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter == 14:
                runner.register_hook(late)

    Runner.from_cfg(toy_config(tmp_path, custom_hooks=[Registers()])).train()
    assert late.modes == ["train"] * 5 + ["val"] * 3  # iterations 16 to 20, then three batches


def test_logged_losses_are_means_and_hold_no_graph():
    class FakeRunner:
        iter, message_hub = 0, MessageHub()

    weight = torch.ones(1, requires_grad=True)
    for step in range(4):
        outputs = {"loss": (weight * step).sum(), "acc": torch.tensor(10 * step), "plain": 0.5}
        RuntimeInfoHook().after_train_iter(FakeRunner, step, outputs=outputs)
    hub = FakeRunner.message_hub
    hub.update_scalar("val/mIoU", 3.0)
    assert not any(v.requires_grad for v in hub.get_scalar("train/loss").values)
    assert hub.get_scalar("train/loss").current() == 3.0
    assert hub.get_scalar("train/loss").mean(2) == 2.5
    assert hub.take("train/") == {"loss": 1.5, "acc": 15.0, "plain": 0.5}
    assert hub.take("train/") == {}
    assert hub.get_scalar("train/loss").current() == 3.0
    with pytest.raises(KeyError, match="no scalar 'train/los', there are train/loss"):
        hub.get_scalar("train/los")


def test_a_window_keeps_the_newest_values():
    hub = MessageHub()
    hub.update_scalars({"train/a": 1.0, "train/b": {"value": torch.tensor(2.0), "count": 1}})
    hub.update_scalars({"train/a": 3.0, "train/b": torch.tensor(4.0)})
    assert hub.take("train/", window=1) == {"a": 3.0, "b": 4.0}
