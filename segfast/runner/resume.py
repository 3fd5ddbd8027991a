"""Saving the whole state of a run, and going on from it as if nothing had happened."""

# SPDX-License-Identifier: Apache-2.0

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segfast._native import build_info
from segfast.config import dump_config
from segfast.errors import CheckpointError
from segfast.runner.checkpoint import (
    load_checkpoint,
    load_weights,
    random_state,
    save_checkpoint,
    set_random_state,
)


def save_run(
    runner: Any,
    path: Path,
    *,
    step: int | None,
    epoch: int | None,
    weights_only: bool,
    without: Sequence[str],
) -> None:
    """Write a run's state; `weights_only` leaves out all but weights and meta, `without` those parts."""
    meta = {
        "iter": runner.iter if step is None else step,
        "epoch": runner.epoch if epoch is None else epoch,
        "cfg": dump_config(runner.cfg),
        "seed": runner.seed,
        "experiment_name": runner.experiment_name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "segfast_version": build_info()["version"],
        "dataset_meta": _plain_meta(runner.train_loop.dataloader.dataset),
    }
    weights = {key: value.cpu() for key, value in runner.model.state_dict().items()}
    state: dict[str, Any] = {"meta": meta, "state_dict": weights}
    if not weights_only:
        state["optimizer"] = runner.optim_wrapper.state_dict()
        # Schedulers step before this save (hook priorities): they stand at the next iteration.
        state["param_schedulers"] = [
            scheduler.state_dict() for scheduler in runner.param_schedulers
        ]
        state["random"] = random_state()
    runner.call_hook("before_save_checkpoint", checkpoint=state)  # hooks may change the weights
    if weights_only:
        state = {key: state[key] for key in ("meta", "state_dict")}
    save_checkpoint({key: value for key, value in state.items() if key not in without}, path)


def load_or_resume(runner: Any, training: bool = True) -> None:
    """Start from `load_from`'s weights, or continue a run exactly where its checkpoint was written.

    Without `training` only weights are loaded.
    """
    source = runner.load_from
    if runner.resume and source is None:
        source = _last_checkpoint(runner.work_dir)
        if source is None:
            runner.log.info(f"nothing to resume in {runner.work_dir}: starting from the beginning")
    if source is None:
        return
    checkpoint = load_checkpoint(source, runner.device)
    runner.call_hook("after_load_checkpoint", checkpoint=checkpoint)  # hooks may change the weights
    strict = bool(runner.resume) or not training
    different = load_weights(runner.model, checkpoint, source, strict=strict)
    if different:
        runner.log.info(
            f"{source}: {len(different)} keys did not match, the first is {different[0]}"
        )
    if not runner.resume or not training:
        return
    if "optimizer" not in checkpoint or "param_schedulers" not in checkpoint:
        raise CheckpointError(
            f"{source} holds weights only, it cannot be resumed (hint: load_from without resume)"
        )
    if "random" not in checkpoint:
        raise CheckpointError(
            f"{source} is no checkpoint of segfast, its run cannot be resumed (hint: load_from without resume)"
        )
    runner.train_loop.iter = checkpoint["meta"]["iter"]
    runner.train_loop.epoch = checkpoint["meta"]["epoch"]
    runner.optim_wrapper.load_state_dict(checkpoint["optimizer"])
    given, saved = len(runner.param_schedulers), len(checkpoint["param_schedulers"])
    if given != saved:
        raise CheckpointError(
            f"{source} was written with {saved} param_schedulers, the config has {given} (hint: resume with the "
            "config of that run, or use load_from without resume)"
        )
    for scheduler, state in zip(
        runner.param_schedulers, checkpoint["param_schedulers"], strict=True
    ):
        scheduler.load_state_dict(state)
    set_random_state(checkpoint["random"])
    runner.log.info(f"resumed {source} at iteration {runner.iter}")


def _last_checkpoint(work_dir: Path) -> Path | None:
    """The checkpoint that a work_dir names as its last; found again if the folder was moved."""
    pointer = work_dir / "last_checkpoint"
    if not pointer.is_file():
        return None
    path = Path(pointer.read_text(encoding="utf-8").strip())
    return path if path.is_file() else work_dir / path.name


def _plain_meta(dataset: Any) -> dict:
    """Class names and palette as lists, for the checkpoint."""
    meta = getattr(dataset, "metainfo", None) or {}
    kept = {key: meta[key] for key in ("classes", "palette") if meta.get(key)}
    return {
        key: [list(v) if isinstance(v, (list, tuple)) else v for v in value]
        for key, value in kept.items()
    }
