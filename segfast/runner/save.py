"""Saving the whole state of a run."""

# SPDX-License-Identifier: Apache-2.0

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segfast._native import build_info
from segfast.config import dump_config
from segfast.distributed import gather, is_first, wait_for_all, world
from segfast.distributed.sharded import is_sharded, whole
from segfast.models.distributed import unwrapped
from segfast.runner.checkpoint import random_state, save_checkpoint
from segfast.runner.message_hub import only_numbers
from segfast.runner.optim_dict import optimizer_names, wrappers


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
        "validated": runner.train_loop.validated,
        "metrics": only_numbers(runner.metrics),
        "place": runner.train_loop.place(runner.iter if step is None else step),
        "optimizer": optimizer_names(runner.optim_wrapper),
    }
    weights = whole(dict(unwrapped(runner.model).state_dict()))
    state: dict[str, Any] = {"meta": meta, "state_dict": weights}
    if not weights_only:
        state["optimizer"] = runner.optim_wrapper.state_dict()
        parts = wrappers(runner.optim_wrapper)
        state["inner_counts"] = [getattr(part, "inner_count", 0) for part in parts]
        # Schedulers step before this save (hook priorities): they stand at the next iteration.
        state["param_schedulers"] = [
            scheduler.state_dict() for scheduler in runner.param_schedulers
        ]
        first, *others = gather(
            {"random": random_state(), "message_hub": runner.message_hub.pending()}
        )
        state |= {**first, "others": others}
        state["gradients"] = _gradients(unwrapped(runner.model))
        norm = runner.optim_wrapper.grad_norm  # for the next log line
        state["grad_norm"] = None if norm is None else torch.as_tensor(norm).cpu()
    runner.call_hook("before_save_checkpoint", checkpoint=state)  # hooks may change the weights
    if weights_only:
        state = {key: state[key] for key in ("meta", "state_dict")}
    if is_first():
        save_checkpoint({key: value for key, value in state.items() if key not in without}, path)
    wait_for_all()  # when this returns, the file is there


def _gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """By parameter: what an accumulation group, or a model that steps by itself, has gathered so far.

    Of several processes it is the mean, with which they go on themselves: more or fewer of them may resume.
    """
    processes, parameters = world()[1], dict(model.named_parameters())
    pending = gather([name for name, parameter in parameters.items() if parameter.grad is not None])
    names = sorted(set().union(*pending))
    for parameter in (parameters[name] for name in names):
        if processes > 1 and not is_sharded(parameter):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= processes
    return whole({name: parameters[name].grad for name in names})


def _plain_meta(dataset: Any) -> dict:
    """Class names and palette as lists, for the checkpoint."""
    meta = getattr(dataset, "metainfo", None) or {}
    kept = {key: meta[key] for key in ("classes", "palette") if meta.get(key)}
    return {
        key: [list(v) if isinstance(v, (list, tuple)) else v for v in value]
        for key, value in kept.items()
    }
