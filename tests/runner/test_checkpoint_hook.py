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
            work_dir=work_dir, iter=0, max_iters=max_iters, epoch=0, max_epochs=1, optim_wrapper=1, resume=True,
            resumed_from=None,
            train_loop=SimpleNamespace(by_epoch=False), saves=[],
        )  # fmt: skip

    def save_checkpoint(self, path, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(repr(options))
        self.saves.append((path.name, options))

    def names(self):
        return sorted(path.name for path in self.work_dir.glob("*.pth"))


def iterate(hook, runner, scores=()):
    """max_iters iterations; `scores`: iteration -> metrics of the validation after it."""
    scores = dict(scores)
    hook.before_run(runner)
    for done in range(runner.max_iters):
        runner.iter = done
        hook.after_train_iter(runner, batch_idx=0)
        if done + 1 in scores:
            runner.iter = done + 1  # the loop counts before it validates
            hook.after_val_epoch(runner, metrics=scores[runner.iter])
            hook.after_val(runner)


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
    runner, hook = FakeRunner(tmp_path), CheckpointHook()
    hook.before_run(runner)
    hook.after_val_epoch(runner, metrics={"seg/mDice": 1.0, "other": 2.0})
    assert runner.names() == ["best_seg_mDice_iter_0.pth"]


def test_wrong_settings(tmp_path):
    runner = FakeRunner(tmp_path)
    with pytest.raises(ConfigError, match=r"^rule: expected 'greater' or 'less'"):
        CheckpointHook(rule="more")
    with pytest.raises(ConfigError, match=r"save_best: no metric 'mIoUs', there are aAcc, mIoU"):
        CheckpointHook(save_best="mIoUs").after_val_epoch(runner, metrics={"aAcc": 1, "mIoU": 2})
    with pytest.raises(
        ConfigError, match=r"^default_hooks.checkpoint.rule: cannot tell whether a greater quality"
    ):
        CheckpointHook().after_val_epoch(runner, metrics={"quality": 1})
    for options, text in [
        ({"save_best": "mIuo"}, r"^rule: cannot tell whether a greater mIuo .*did you mean mIoU"),
        ({"save_best": ["auto", "mIoU"]}, "'auto' stands alone"),
        ({"save_best": ["mIoU", "mIoU"]}, "the same metric twice"),
        ({"save_best": ["mIoU", "aAcc", "mAcc"], "rule": ["less", "less"]}, "one for each of"),
        ({"save_begin": -1}, "save_begin: expected at least 0"),
    ]:
        with pytest.raises(ConfigError, match=text):
            CheckpointHook(**options)


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


def test_several_best_files_each_by_its_own_rule(tmp_path):
    runner = FakeRunner(tmp_path, max_iters=3)
    hook = CheckpointHook(save_last=False, save_best=["seg/mIoU", "val_loss"])
    scores = [
        {"seg/mIoU": 1, "val_loss": 2},
        {"seg/mIoU": 3, "val_loss": 4},
        {"seg/mIoU": 2, "val_loss": 1},
    ]
    iterate(hook, runner, {i + 1: score for i, score in enumerate(scores)})
    assert runner.names() == ["best_seg_mIoU_iter_2.pth", "best_val_loss_iter_3.pth"]
    assert hook.best_checkpoint == str(tmp_path / "best_seg_mIoU_iter_2.pth")


def test_keys_of_ones_own_say_which_way_is_better(tmp_path):
    runner = FakeRunner(tmp_path, max_iters=2)
    hook = CheckpointHook(
        save_last=False, save_best="error_rate", less_keys=["Error"], greater_keys="x"
    )
    iterate(hook, runner, {1: {"error_rate": 5}, 2: {"error_rate": 3}})
    assert runner.names() == ["best_error_rate_iter_2.pth"]


def test_a_file_of_the_same_iteration_learns_of_the_best(tmp_path):
    """Saving comes before validation: what is written must not forget the best that follows."""
    runner = FakeRunner(tmp_path, max_iters=4)
    iterate(CheckpointHook(interval=2), runner, {2: {"mIoU": 1}, 3: {"mIoU": 2}, 4: {"mIoU": 1}})
    names = [name for name, _ in runner.saves]
    assert names == [
        "iter_2.pth",
        "best_mIoU_iter_2.pth",
        "iter_2.pth",
        "best_mIoU_iter_3.pth",
        "iter_4.pth",
    ]


def test_where_saving_begins_and_how_files_are_called(tmp_path):
    runner = FakeRunner(tmp_path / "run")
    (tmp_path / "run").mkdir()
    hook = CheckpointHook(
        interval=3, save_begin=4, save_last=False, max_keep_ckpts=-1, out_dir=tmp_path / "out",
        filename_tmpl="step-{}.pt", save_optimizer=False, save_best=None,
    )  # fmt: skip
    iterate(hook, runner, {4: {"mIoU": 1}})
    assert sorted(path.name for path in (tmp_path / "out/run").iterdir()) == [
        "step-10.pt", "step-4.pt", "step-7.pt"
    ]  # fmt: skip
    assert runner.saves[0][1]["without"] == ["optimizer"]
    assert (tmp_path / "run/last_checkpoint").read_text().strip().endswith("out/run/step-10.pt")


def test_epochs_are_counted_as_the_loop_counts(tmp_path):
    runner = FakeRunner(tmp_path)
    runner.train_loop.by_epoch, runner.max_epochs = True, 3
    hook = CheckpointHook(interval=2, max_keep_ckpts=-1)
    hook.before_run(runner)
    for runner.epoch in range(3):
        hook.after_train_epoch(runner)
        runner.epoch += 1
        hook.after_val_epoch(runner, metrics={"mIoU": runner.epoch})
        hook.after_train_iter(runner, batch_idx=0)
    assert runner.names() == ["best_mIoU_epoch_3.pth", "epoch_2.pth", "epoch_3.pth"]


def test_names_from_a_checkpoint_stay_in_the_folder(tmp_path):
    """Whoever resumes somebody else's checkpoint must not lose files elsewhere."""
    outside = tmp_path / "outside.pth"
    outside.write_text("precious")
    runner = FakeRunner(tmp_path / "run", max_iters=3)
    hook = CheckpointHook(interval=1, max_keep_ckpts=1)
    best = {"mIoU": {"score": 0.0, "name": "../outside.pth"}}
    state = {"checkpoint_hook": {"best": best, "kept": ["../outside.pth", str(outside)]}}
    hook.after_load_checkpoint(runner, checkpoint=state)
    iterate(hook, runner, {2: {"mIoU": 1.0}})
    assert outside.read_text() == "precious"
    assert runner.names() == ["best_mIoU_iter_2.pth", "iter_3.pth"]


def test_a_stopped_run_is_saved_once(tmp_path):
    runner, hook = FakeRunner(tmp_path), CheckpointHook(interval=2)
    hook.before_run(runner)
    runner.iter = 1
    hook.after_train_iter(runner, batch_idx=1)
    runner.iter = 2  # the loop has counted
    assert hook.save_now(runner) == str(tmp_path / "iter_2.pth")
    assert len(runner.saves) == 1
    runner.iter = 3
    assert hook.save_now(runner) == str(tmp_path / "iter_3.pth")
    assert runner.names() == ["iter_2.pth", "iter_3.pth"]
