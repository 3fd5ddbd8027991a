"""CheckpointHook: the last state, the best weights, and no more files than asked for."""

# SPDX-License-Identifier: Apache-2.0

import math
from pathlib import Path
from typing import Any

from segfast.errors import ConfigError
from segfast.registry import HOOKS, did_you_mean
from segfast.runner.checkpoint import write_atomically
from segfast.runner.hooks import Hook

# Substrings of a metric's name that say which way is better. Source: MMEngine's CheckpointHook.
_GREATER = (
    "acc",
    "top",
    "AR@",
    "auc",
    "precision",
    "mAP",
    "mDice",
    "mIoU",
    "mAcc",
    "aAcc",
    "mFscore",
    "mRecall",
    "PSNR",
)
_LESS = ("loss",)


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Saves `iter_N.pth` (or `epoch_N.pth`), names it in `last_checkpoint`, and keeps `best_<metric>_iter_N.pth`.

    Args:
        interval: iterations (or epochs) between saves; -1 saves only at the end.
        by_epoch: count epochs.
        save_last: also save after the last iteration.
        save_best: a key of the metrics, "auto" for mIoU or else the first one, or None. The best file
            holds weights and meta only.
        rule: "greater" or "less"; None infers it from the metric's name.
        max_keep_ckpts: how many regular files stay; -1 keeps all.
    """

    priority = "VERY_LOW"

    def __init__(
        self,
        interval: int = -1,
        by_epoch: bool = False,
        save_last: bool = True,
        save_best: str | None = "auto",
        rule: str | None = None,
        max_keep_ckpts: int = 1,
    ) -> None:
        """Check the settings."""
        if rule not in (None, "greater", "less"):
            raise ConfigError("rule", f"expected 'greater' or 'less', got {rule!r}")
        self.interval, self.by_epoch, self.save_last = interval, by_epoch, save_last
        self.save_best, self.rule, self.max_keep_ckpts = save_best, rule, max_keep_ckpts
        self.best_score: float | None = None
        self.best_checkpoint: str | None = None
        self.last_checkpoint: str | None = None
        self._kept: list[str] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save by iterations, before a validation of the same iteration."""
        if self.by_epoch:
            return
        due = self.every_n_train_iters(runner, self.interval)
        if due or (self.save_last and self.is_last_train_iter(runner)):
            self._save(runner, runner.iter + 1, f"iter_{runner.iter + 1}.pth")

    def after_train_epoch(self, runner: Any) -> None:
        """Save by epochs."""
        if self.by_epoch and (
            self.every_n_epochs(runner, self.interval)
            or (self.save_last and self.is_last_train_epoch(runner))
        ):
            self._save(runner, runner.iter, f"epoch_{runner.epoch + 1}.pth", epoch=runner.epoch + 1)

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Keep the best weights."""
        if self.save_best is None or not metrics or runner.optim_wrapper is None:
            return
        key = self.save_best
        if key == "auto":
            key = "mIoU" if "mIoU" in metrics else next(iter(metrics))
        if key not in metrics:
            raise ConfigError(
                "default_hooks.checkpoint.save_best",
                f"no metric {key!r}, there are {', '.join(metrics)}{did_you_mean(key, metrics)}",
            )
        score = float(metrics[key])
        if math.isnan(score) or not self._better(key, score):
            return
        previous = self.best_checkpoint
        self.best_score = score
        path = Path(runner.work_dir) / f"best_{key.replace('/', '_')}_iter_{runner.iter}.pth"
        runner.save_checkpoint(path, weights_only=True)
        self.best_checkpoint = str(path)
        if previous and previous != self.best_checkpoint:
            Path(previous).unlink(missing_ok=True)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """A resumed run goes on with the same best and the same files."""
        checkpoint["checkpoint_hook"] = {
            "best_score": self.best_score, "best_checkpoint": self.best_checkpoint, "kept": list(self._kept)
        }  # fmt: skip

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Take over the best and the files."""
        state = checkpoint.get("checkpoint_hook", {})
        self.best_score, self.best_checkpoint = (
            state.get("best_score"),
            state.get("best_checkpoint"),
        )
        self._kept = list(state.get("kept", []))

    def _better(self, key: str, score: float) -> bool:
        rule = self.rule
        if rule is None and any(part in key for part in _GREATER):
            rule = "greater"
        elif rule is None and any(part in key for part in _LESS):
            rule = "less"
        if rule is None:
            problem = f"cannot tell whether a greater {key} is better; set 'greater' or 'less'"
            raise ConfigError("default_hooks.checkpoint.rule", problem)
        if self.best_score is None:
            return True
        return score > self.best_score if rule == "greater" else score < self.best_score

    def _save(self, runner: Any, step: int, name: str, epoch: int | None = None) -> None:
        path = Path(runner.work_dir) / name
        self._kept = [kept for kept in self._kept if kept != name] + [name]
        dropped = self._kept[: -self.max_keep_ckpts] if self.max_keep_ckpts > 0 else []
        self._kept = self._kept[len(dropped) :]
        runner.save_checkpoint(path, step=step, epoch=epoch)
        self.last_checkpoint = str(path)
        write_atomically(
            path.with_name("last_checkpoint"), lambda file: file.write(f"{path}\n".encode())
        )
        for old in dropped:
            path.with_name(old).unlink(missing_ok=True)
