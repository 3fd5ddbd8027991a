"""EarlyStoppingHook: when training ends, and when it does not."""

# SPDX-License-Identifier: Apache-2.0

import math
from types import SimpleNamespace

import pytest
from runner.toys import toy_config

from segfast.errors import ConfigError
from segfast.runner import EarlyStoppingHook, Runner


def stops_at(hook, scores, name="mIoU"):
    """The validation after which training stops, counted from 1; None if it does not."""
    lines = []
    log = SimpleNamespace(info=lines.append, warning=lines.append)
    runner = SimpleNamespace(train_loop=SimpleNamespace(stop_training=False), log=log)
    for i, score in enumerate(scores):
        hook.after_val_epoch(runner, metrics={name: score})
        if runner.train_loop.stop_training:
            assert "training stops early" in lines[-1]
            return i + 1
    return None


@pytest.mark.parametrize(("options", "scores", "expected"), [
    ({"patience": 2}, [50, 50, 50], 3),  # less than min_delta better is not better
    ({"patience": 2}, [50, 50.1, 50.2, 50.3], None),
    ({"patience": 2}, [50, 40, 60, 40, 40], 5),  # in a row
    ({"patience": 1, "min_delta": 0.0}, [50, 50, 50], None),
    ({"patience": 1, "rule": "less", "min_delta": 1}, [50, 49.5], 2),
    ({"patience": 1, "rule": "less", "min_delta": 1}, [50, 49, 48], None),
    ({"patience": 9, "stopping_threshold": 70}, [50, 70, 70.5], 3),
    ({"patience": 9}, [50, math.nan], 2),
    ({"patience": 2, "check_finite": False}, [50, math.nan, 60], None),
])  # fmt: skip
def test_when_it_stops(options, scores, expected):
    assert stops_at(EarlyStoppingHook("mIoU", **options), scores) == expected


def test_missing_metrics():
    assert stops_at(EarlyStoppingHook("mIoU"), [1], name="other") is None
    with pytest.raises(ConfigError, match="no metric 'mIoU', there are other"):
        stops_at(EarlyStoppingHook("mIoU", strict=True), [1], name="other")
    with pytest.raises(ValueError, match="cannot tell whether a greater quality"):
        EarlyStoppingHook("quality")


@pytest.mark.parametrize("loop", [
    {"type": "IterBasedTrainLoop", "max_iters": 40, "val_interval": 5},
    {"type": "EpochBasedTrainLoop", "max_epochs": 20, "val_interval": 1},
])  # fmt: skip
def test_a_run_ends_before_its_next_iteration(tmp_path, loop):
    hook = EarlyStoppingHook("aAcc", min_delta=1000, patience=2)
    runner = Runner.from_cfg(toy_config(tmp_path, train_cfg=loop, custom_hooks=[hook]))
    runner.train()
    assert runner.iter == (15 if "max_iters" in loop else 18)
    state = {}
    hook.before_save_checkpoint(runner, checkpoint=state)
    again = EarlyStoppingHook("aAcc", patience=3)
    runner.resume, runner.hooks = True, [again]
    again.after_load_checkpoint(runner, checkpoint=state)
    assert (again.wait_count, again.best_score) == (hook.wait_count, hook.best_score)
