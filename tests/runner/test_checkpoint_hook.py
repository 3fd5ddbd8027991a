"""CheckpointHook: when it saves, what it keeps, and which way is better."""

# SPDX-License-Identifier: Apache-2.0

from types import SimpleNamespace

import pytest

from segfast.errors import ConfigError
from segfast.runner import CheckpointHook


class FakeRunner(SimpleNamespace):
    """Counts iterations and writes empty files."""

    def __init__(self, work_dir, max_iters=10):
        super().__init__(
            work_dir=work_dir, iter=0, max_iters=max_iters, epoch=0, max_epochs=1, optim_wrapper=1
        )

    def save_checkpoint(self, path, **options):
        path.write_text(repr(options))

    def names(self):
        return sorted(path.name for path in self.work_dir.glob("*.pth"))


def iterate(hook, runner, scores=()):
    """max_iters iterations; `scores`: iteration -> metrics of the validation after it."""
    scores = dict(scores)
    for done in range(runner.max_iters):
        runner.iter = done
        hook.after_train_iter(runner, batch_idx=0)
        if done + 1 in scores:
            runner.iter = done + 1  # the loop counts before it validates
            hook.after_val_epoch(runner, metrics=scores[runner.iter])


def test_interval_last_and_how_many_stay(tmp_path):
    runner = FakeRunner(tmp_path)
    iterate(CheckpointHook(interval=4, max_keep_ckpts=2), runner)
    assert runner.names() == ["iter_10.pth", "iter_8.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == f"{tmp_path / 'iter_10.pth'}\n"


def test_without_last(tmp_path):
    runner = FakeRunner(tmp_path)
    iterate(CheckpointHook(interval=4, save_last=False, max_keep_ckpts=-1), runner)
    assert runner.names() == ["iter_4.pth", "iter_8.pth"]


@pytest.mark.parametrize(
    ("options", "name", "values", "best"),
    [
        ({}, "mIoU", [10, 30, 20], 3),
        ({"save_best": "loss_val"}, "loss_val", [3, 1, 2], 3),
        ({"save_best": "score", "rule": "less"}, "score", [3, 2, 1], 4),
        ({}, "mIoU", [float("nan"), 5, 5], 3),  # NaN never wins, nor does a tie
    ],
)
def test_best(tmp_path, options, name, values, best):
    runner = FakeRunner(tmp_path, max_iters=4)
    hook = CheckpointHook(interval=-1, save_last=False, **options)
    iterate(hook, runner, {i + 2: {"aAcc": i, name: value} for i, value in enumerate(values)})
    assert runner.names() == [f"best_{name}_iter_{best}.pth"]  # the one before is deleted
    assert hook.best_checkpoint == str(tmp_path / f"best_{name}_iter_{best}.pth")
    assert "'weights_only': True" in (tmp_path / f"best_{name}_iter_{best}.pth").read_text()


def test_auto_takes_the_first_metric_where_there_is_no_miou(tmp_path):
    runner = FakeRunner(tmp_path)
    CheckpointHook().after_val_epoch(runner, metrics={"seg/mDice": 1.0, "other": 2.0})
    assert runner.names() == ["best_seg_mDice_iter_0.pth"]


def test_wrong_settings(tmp_path):
    runner = FakeRunner(tmp_path)
    with pytest.raises(ConfigError, match=r"^rule: expected 'greater' or 'less'"):
        CheckpointHook(rule="more")
    with pytest.raises(ConfigError, match=r"save_best: no metric 'mIuo', there are aAcc, mIoU"):
        CheckpointHook(save_best="mIuo").after_val_epoch(runner, metrics={"aAcc": 1, "mIoU": 2})
    hook = CheckpointHook(save_best="quality")
    with pytest.raises(ConfigError, match=r"rule: cannot tell whether a greater quality"):
        hook.after_val_epoch(runner, metrics={"quality": 1})


def test_a_resumed_hook_knows_its_best_and_its_files(tmp_path):
    runner = FakeRunner(tmp_path)
    first = CheckpointHook(interval=4, max_keep_ckpts=1)
    iterate(first, runner, {6: {"mIoU": 50}})
    state = {}
    first.before_save_checkpoint(runner, checkpoint=state)
    second = CheckpointHook(interval=4, max_keep_ckpts=1)
    second.after_load_checkpoint(runner, checkpoint=state)
    runner.max_iters = 12
    iterate(second, runner, {12: {"mIoU": 40}})
    assert runner.names() == ["best_mIoU_iter_6.pth", "iter_12.pth"]
