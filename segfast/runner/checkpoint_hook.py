"""CheckpointHook: the last state, the best weights, and no more files than asked for."""

# SPDX-License-Identifier: Apache-2.0

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segfast.distributed import is_first, share
from segfast.errors import ConfigError
from segfast.paths import is_plain_name
from segfast.registry import HOOKS, did_you_mean
from segfast.runner.atomic_file import UNFINISHED, remove_unfinished, write_atomically
from segfast.runner.better import GREATER, LESS, better_rule
from segfast.runner.checkpoint import load_checkpoint, save_checkpoint
from segfast.runner.hooks import Hook


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Saves `iter_N.pth` (or `epoch_N.pth`), names it in `last_checkpoint`, and keeps `best_<metric>_iter_N.pth`.

    Args:
        interval: iterations (or epochs) between saves; -1 saves only at the end.
        by_epoch: count epochs; None: as the training loop does.
        save_optimizer, save_param_scheduler: without them a file cannot be resumed.
        save_last: also save after the last iteration.
        save_begin: the first iteration (or epoch) from which the interval counts.
        save_best: a key of the metrics or several, "auto" for mIoU or else the first one, or None. Best files
            hold weights and meta only.
        rule: "greater" or "less", for all keys or one each; None infers it from the metric's name by `greater_keys`
            and `less_keys`.
        max_keep_ckpts: how many regular files stay; -1 keeps all. With two, a run whose last file gets damaged
            resumes from the one before.
        out_dir: a folder for them instead of work_dir; they lie in its subfolder of the work_dir's name.
        filename_tmpl: their names, default `iter_{}.pth` or `epoch_{}.pth`.
        published_keys: after training, the last and the best file are written once more with these keys only, named
            `<name>-<first 8 digits of the SHA-256>.pth`.
        backend_args: kept for configs; files are local.
    """

    priority = "VERY_LOW"

    def __init__(
        self,
        interval: int = -1,
        by_epoch: bool | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        out_dir: str | Path | None = None,
        max_keep_ckpts: int = 2,
        save_last: bool = True,
        save_best: str | Sequence[str] | None = "auto",
        rule: str | Sequence[str] | None = None,
        greater_keys: Sequence[str] | str | None = None,
        less_keys: Sequence[str] | str | None = None,
        filename_tmpl: str | None = None,
        published_keys: Sequence[str] | str | None = None,
        save_begin: int = 0,
        backend_args: Mapping | None = None,
    ) -> None:
        """Check the settings."""
        if save_begin < 0:
            raise ConfigError("save_begin", f"expected at least 0, got {save_begin}")
        self.interval, self.by_epoch, self.save_last = interval, by_epoch, save_last
        self.save_begin, self.max_keep_ckpts = save_begin, max_keep_ckpts
        self.parts = {"optimizer": save_optimizer, "param_schedulers": save_param_scheduler}
        self.out_dir, self.filename_tmpl = out_dir, _checked_template(filename_tmpl)
        self.published_keys = _listed(published_keys)
        self.greater_keys = _listed(greater_keys) or list(GREATER)
        self.less_keys = _listed(less_keys) or list(LESS)
        self.save_best = _listed(save_best)
        self.rules = self._rules(rule)
        self.best: dict[str, dict[str, Any]] = {}  # metric -> its score and the name of its file
        self.last_checkpoint: str | None = None
        self._last_step = self._last_iter = -1  # of the last save
        self._improved = False
        self._kept: list[str] = []  # names
        self._folder = Path()

    @property
    def best_checkpoint(self) -> str | None:
        """The best file; of several metrics the first one's. A run that resumed another's may have the score only."""
        names = (entry["name"] for entry in self.best.values())
        return next((str(self._folder / name) for name in names if name), None)

    @property
    def best_score(self) -> float | None:
        """Its score."""
        return next((entry["score"] for entry in self.best.values()), None)

    def before_run(self, runner: Any) -> None:
        """Find the folder."""
        work_dir = Path(runner.work_dir)
        self._folder = (
            work_dir if self.out_dir is None else Path(self.out_dir) / work_dir.resolve().name
        )

    def before_train(self, runner: Any) -> None:
        """Clear up behind a run that was killed."""
        for folder in {Path(runner.work_dir), self._folder} if is_first() else ():
            remove_unfinished(folder)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save at the interval and at the end."""
        step = runner.iter + 1
        if not self._by_epoch(runner) and (
            self._due(step) or (self.save_last and self.is_last_train_iter(runner))
        ):
            self._save(runner, step, iteration=step)

    def after_train_epoch(self, runner: Any) -> None:
        """The same, where epochs count."""
        step = runner.epoch + 1
        if self._by_epoch(runner) and (
            self._due(step) or (self.save_last and self.is_last_train_epoch(runner))
        ):
            self._save(runner, step, iteration=runner.iter, epoch=step)

    def after_val_epoch(self, runner: Any, metrics: Mapping | None = None) -> None:
        """Keep the best weights of each metric."""
        if not self.save_best or not metrics or runner.optim_wrapper is None:
            return
        improved = [
            self._keep_best(runner, i, key, metrics) for i, key in enumerate(self.save_best)
        ]
        self._improved = any(improved)

    def after_val(self, runner: Any) -> None:
        """Save once more, after all hooks, if the file of this step does not know of its new best."""
        if self._improved and self._last_step == self._step(runner):
            self._save(runner, self._last_step, iteration=runner.iter, epoch=runner.epoch)
        self._improved = False

    def after_train(self, runner: Any) -> None:
        """Save the last state where training ended before its time, and publish."""
        if self.save_last and self._last_iter != runner.iter:
            self._save(runner, self._step(runner), iteration=runner.iter, epoch=runner.epoch)
        if self.published_keys and is_first():
            names = {*self._kept[-1:], *(entry["name"] for entry in self.best.values())}
            for name in names - {""}:
                _publish(self._folder / name, self.published_keys)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """A resumed run goes on with the same best and the same files."""
        best = {key: dict(entry) for key, entry in self.best.items()}
        checkpoint["checkpoint_hook"] = {"best": best, "kept": list(self._kept)}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Take over the best and the files."""
        if runner.resume:
            state = checkpoint.get("checkpoint_hook", {})
            # A checkpoint of somebody else must not name other files than checkpoints, which would be deleted.
            self._kept = [name for name in state.get("kept", []) if self._may_delete(name)]
            best = state.get("best", {})
            names = share(self._kept_best(best))
            self.best = {
                key: {
                    "score": entry["score"],
                    "name": entry["name"] if entry["name"] in names else "",
                }
                for key, entry in best.items()
            }
            self.last_checkpoint = str(runner.resumed_from) if runner.resumed_from else None
            if runner.resumed_from and runner.resumed_from.parent == self._folder:
                self._last_iter = checkpoint["meta"]["iter"]

    def save_now(self, runner: Any) -> str:
        """Save between two iterations, whatever the interval; returns the file."""
        if self._last_iter != runner.iter:
            self._save(runner, -1, iteration=runner.iter, epoch=runner.epoch)
        return str(self.last_checkpoint)

    def _step(self, runner: Any) -> int:
        """Where training stands, in what is counted."""
        return runner.epoch if self._by_epoch(runner) else runner.iter

    def _by_epoch(self, runner: Any) -> bool:
        return runner.train_loop.by_epoch if self.by_epoch is None else self.by_epoch

    def _due(self, step: int) -> bool:
        past = step - self.save_begin
        return self.interval > 0 and past >= 0 and past % self.interval == 0

    def _kept_best(self, best: Mapping) -> list[str]:
        """Those of a checkpoint's best files that lie here; a run that resumes another's has the scores only."""
        return [
            entry["name"]
            for entry in best.values()
            if self._may_delete(entry["name"])
            and entry["name"].startswith("best_")
            and (self._folder / entry["name"]).is_file()
        ]

    def _may_delete(self, name: Any) -> bool:
        """Whether that may be a checkpoint of this hook."""
        suffixes = {".pth", Path(self.filename_tmpl or "").suffix}
        return is_plain_name(name) and Path(name).suffix in suffixes - {""}

    def _name(self, runner: Any, step: int) -> str:
        default = "epoch_{}.pth" if self._by_epoch(runner) else "iter_{}.pth"
        return (self.filename_tmpl or default).format(step)

    def _rules(self, rule: Any) -> list[str | None]:
        """The rule of each key; None where the key, "auto", is not known yet."""
        given = _listed(rule) or [None]
        if len(given) not in (1, len(self.save_best)):
            raise ConfigError("rule", f"expected one, or one for each of {self.save_best}")
        given = given * len(self.save_best) if len(given) == 1 else given
        if "auto" in self.save_best and len(self.save_best) > 1:
            raise ConfigError("save_best", "'auto' stands alone")
        if len(set(self.save_best)) < len(self.save_best):
            raise ConfigError("save_best", f"the same metric twice in {self.save_best}")
        if any(r not in (None, "greater", "less") for r in given):
            raise ConfigError("rule", f"expected 'greater' or 'less', got {rule!r}")
        return [
            r if key == "auto" else self._rule(key, r)
            for key, r in zip(self.save_best, given, strict=True)
        ]

    def _rule(self, key: str, rule: str | None) -> str:
        try:
            return better_rule(key, rule, self.greater_keys, self.less_keys)
        except ValueError as error:
            raise ConfigError("rule", str(error)) from None

    def _keep_best(self, runner: Any, i: int, key: str, metrics: Mapping) -> bool:
        """Write the best file of one metric if it improved; whether it did."""
        if key == "auto":
            key = "mIoU" if "mIoU" in metrics else next(iter(metrics))
        if key not in metrics:
            problem = (
                f"no metric {key!r}, there are {', '.join(metrics)}{did_you_mean(key, metrics)}"
            )
            raise ConfigError("default_hooks.checkpoint.save_best", problem)
        try:
            greater = self._rule(key, self.rules[i]) == "greater"
        except ConfigError as error:
            raise error.under("default_hooks.checkpoint") from None
        score, best = float(metrics[key]), self.best.get(key)
        if math.isnan(score):
            return False
        if best and not (score > best["score"] if greater else score < best["score"]):
            return False
        name = f"best_{key}_{self._name(runner, self._step(runner))}"
        name = re.sub(r"[/\\\0]", "_", name)
        runner.save_checkpoint(self._folder / name, weights_only=True)
        self.best[key] = {"score": score, "name": name}
        if best and best["name"] not in ("", name) and is_first():
            self._delete(runner, best["name"])
        return True

    def _delete(self, runner: Any, name: str) -> None:
        """A file that is no longer wanted; one that cannot be deleted is no reason to stop."""
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            runner.log.warning(f"cannot delete {self._folder / name}: {error.strerror}")

    def _save(self, runner: Any, step: int, iteration: int, epoch: int | None = None) -> None:
        suffix = Path(self.filename_tmpl or "").suffix or ".pth"
        name = f"iter_{iteration}{suffix}" if step < 0 else self._name(runner, step)
        path = self._folder / name
        self._last_step, self._last_iter = step, iteration
        # What is about to be deleted is still in the file's list: whoever resumes from it deletes what a kill left.
        self._kept = [kept for kept in self._kept if kept != name] + [name]
        without = [part for part, wanted in self.parts.items() if not wanted]
        runner.save_checkpoint(path, step=iteration, epoch=epoch, without=without)
        self.last_checkpoint = str(path)
        dropped = self._kept[: -self.max_keep_ckpts] if self.max_keep_ckpts > 0 else []
        self._kept = self._kept[len(dropped) :]
        if not is_first():
            return
        pointer = Path(runner.work_dir) / "last_checkpoint"
        write_atomically(pointer, lambda file: file.write(f"{path}\n".encode()))
        for old in dropped:
            self._delete(runner, old)


def _checked_template(template: str | None) -> str | None:
    """A file name with a place for the number, and no folder in it."""
    if template is None:
        return None
    try:
        names = template.format(1), template.format(2)
    except (ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        problem = f"{template!r} cannot be filled in with a number ({error})"
        raise ConfigError("filename_tmpl", problem) from None
    if names[0] == names[1] or len(names[0]) > 200 or not all(map(is_plain_name, names)):
        problem = f"expected a file name such as 'iter_{{}}.pth', without folders, got {template!r}"
        raise ConfigError("filename_tmpl", problem)
    return template


def _listed(value: Any) -> list:
    """None, one or several as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _publish(path: Path, keys: Sequence[str]) -> None:
    """A copy of a checkpoint with some of its keys, its hash in its name."""
    state = {key: value for key, value in load_checkpoint(path).items() if key in keys}
    plain = path.with_name(f".{path.name}{UNFINISHED}published")
    save_checkpoint(state, plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    plain.replace(path.with_name(f"{path.stem}-{digest[:8]}.pth"))
