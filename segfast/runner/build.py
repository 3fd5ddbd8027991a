"""From configs to the parts of a run: loops with their dataloaders, schedulers, hooks."""

# SPDX-License-Identifier: Apache-2.0

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import RandomSampler, SequentialSampler

from segfast.datasets import build_dataloader, sampler_of
from segfast.distributed import is_first, world
from segfast.errors import ConfigError
from segfast.evaluation import Evaluator
from segfast.registry import EVALUATORS, HOOKS, LOOPS, MODELS, PARAM_SCHEDULERS, VISUALIZERS
from segfast.runner.defaults import HOOKS as DEFAULT_HOOKS
from segfast.runner.defaults import train_cfg
from segfast.runner.hooks import STAGES, Hook, priority_number
from segfast.runner.optim_dict import OptimWrapperDict
from segfast.visualization.silent import SilentVisualizer

_PLAIN_SAMPLERS = (RandomSampler, SequentialSampler)
_EVAL_LOOPS = {"val": {"type": "ValLoop"}, "test": {"type": "TestLoop"}}


def check_groups(parts: Mapping[str, tuple], param_scheduler: Any) -> None:
    """Data, loop and optimiser (or evaluator) come together or not at all.

    Args:
        parts: "train", "val", "test" -> dataloader, loop, optimiser or evaluator.
        param_scheduler: needs an optimiser.

    Raises:
        ConfigError: names the first key that is missing.
    """
    for mode, values in parts.items():
        third = "optim_wrapper" if mode == "train" else f"{mode}_evaluator"
        given = dict(zip((f"{mode}_dataloader", f"{mode}_cfg", third), values, strict=True))
        missing = [name for name, value in given.items() if value is None]
        if missing and len(missing) < len(given):
            present = " and ".join(name for name in given if name not in missing)
            verb = "is" if len(missing) == 2 else "are"
            problem = f"missing, but {present} {verb} given (they belong together)"
            raise ConfigError(missing[0], problem)
    if param_scheduler is not None and parts["train"][2] is None:
        raise ConfigError("param_scheduler", "given without optim_wrapper")


def build_loop(runner: Any, mode: str, dataloader_cfg: Any, loop_cfg: Any, evaluator: Any) -> Any:
    """The loop of a mode with its dataloader, or None where there is no data for it.

    Iteration-based training reads one endless stream, everything else whole passes.
    """
    if dataloader_cfg is None:
        return None
    if isinstance(loop_cfg, Mapping):
        loop_cfg = train_cfg(loop_cfg) if mode == "train" else {**_EVAL_LOOPS[mode], **loop_cfg}
    endless = isinstance(loop_cfg, Mapping) and loop_cfg.get("type") == "IterBasedTrainLoop"
    sampler = {
        "type": "InfiniteSampler" if endless else "DefaultSampler",
        "shuffle": mode == "train",
    }
    dataloader = build_dataloader(
        dataloader_cfg, seed=runner.seed, path=f"{mode}_dataloader", default_sampler=sampler
    )
    if mode != "train" and getattr(dataloader.dataset, "on_error", "raise") == "skip":
        problem = "'skip' would count another sample twice in the metrics; only training may skip"
        raise ConfigError(f"{mode}_dataloader.dataset.on_error", problem)
    _check_shares(dataloader, f"{mode}_dataloader")
    arguments = {"runner": runner, "dataloader": dataloader}
    if mode != "train":
        arguments["evaluator"] = _build_evaluator(evaluator, f"{mode}_evaluator")
    return LOOPS.build(loop_cfg, path=f"{mode}_cfg", **arguments)


def _build_evaluator(cfg: Any, path: str) -> Any:
    """An evaluator: itself, from dict(type="Evaluator", metrics=...), or from its metrics."""
    if isinstance(cfg, Evaluator):
        return cfg
    if not (isinstance(cfg, Mapping) and "metrics" in cfg):
        cfg = {"metrics": cfg}
    return EVALUATORS.build({"type": "Evaluator", **cfg}, path=path)


def _check_shares(dataloader: Any, path: str) -> None:
    """Refuse torch's plain samplers where there are several processes: each would see all samples."""
    kind = type(sampler_of(dataloader))
    if world()[1] > 1 and kind in _PLAIN_SAMPLERS:
        raise ConfigError(
            f"{path}.sampler",
            f"{kind.__name__} gives every process the same samples (hint: DefaultSampler or "
            "InfiniteSampler of segfast.datasets)",
        )


def build_schedulers(runner: Any, configs: Any) -> list:
    """Schedulers of a config: one, a list, or, for several optimisers, a dict of those by name."""
    optimizer = runner.optim_wrapper
    if isinstance(optimizer, OptimWrapperDict):
        names = list(optimizer.keys())
        if isinstance(configs, Mapping) and "type" not in configs:
            parts = {f"param_scheduler.{name}": (name, part) for name, part in configs.items()}
        else:  # the same for all
            parts = {f"param_scheduler.{name}": (name, configs) for name in names}
        for path, (name, _) in parts.items():
            if name not in optimizer:
                raise ConfigError(path, f"no such optimizer, there are {', '.join(names)}")
        return [
            scheduler
            for path, (name, part) in parts.items()
            for scheduler in _schedulers(runner, part, optimizer[name], path)
        ]
    return _schedulers(runner, configs, optimizer, "param_scheduler")


def _schedulers(runner: Any, configs: Any, optimizer: Any, path: str) -> list:
    """The schedulers of one optimiser."""
    configs = [configs] if isinstance(configs, Mapping) else configs or []
    built = []
    for i, cfg in enumerate(configs):
        here = f"{path}.{i}"
        if isinstance(cfg, Mapping):
            _warn_of_epochs(cfg, runner, here)
            cfg = _iter_based(_with_end(dict(cfg), runner), len(runner.train_loop.dataloader), here)
        built.append(PARAM_SCHEDULERS.build(cfg, path=here, optimizer=optimizer))
    return built


def _warn_of_epochs(cfg: Mapping, runner: Any, path: str) -> None:
    """A scheduler that counts epochs does nothing where training is one endless epoch."""
    counts_epochs = cfg.get("by_epoch", True) and not cfg.get("convert_to_iter_based")
    if counts_epochs and not runner.train_loop.by_epoch and "Plateau" not in str(cfg.get("type")):
        runner.log.warning(
            f"{path} counts epochs, but training counts iterations: it stays at its first value (hint: by_epoch=False)"
        )


def _with_end(cfg: dict, runner: Any) -> dict:
    """`end` defaults to the end of training."""
    if cfg.get("end") is None:
        end = runner.max_epochs if cfg.get("by_epoch", True) else runner.max_iters
        cfg["end"] = max(end, cfg.get("begin", 0) + 1)  # a run cut short may never reach it
    return cfg


def _iter_based(cfg: dict, epoch_length: int, path: str) -> dict:
    """With `convert_to_iter_based` an epoch counts as its iterations."""
    if not cfg.pop("convert_to_iter_based", False):
        return cfg
    if not cfg.get("by_epoch", True):
        raise ConfigError(f"{path}.convert_to_iter_based", "by_epoch=False is iteration-based")
    kind = cfg.get("type")
    kind = (
        PARAM_SCHEDULERS.get(kind) if isinstance(kind, str) and kind in PARAM_SCHEDULERS else kind
    )
    for key in ("begin", "end", *getattr(kind, "epoch_arguments", ())):
        value = cfg.get(key)
        if isinstance(value, (list, tuple)):
            cfg[key] = [entry * epoch_length for entry in value]
        elif value is not None:
            cfg[key] = int(value * epoch_length)
    return {**cfg, "by_epoch": False}


def build_model(model: Any, data_preprocessor: Any) -> nn.Module:
    """The model; its config may leave the preprocessor to `data_preprocessor`."""
    if data_preprocessor is not None and isinstance(model, Mapping):
        model = {"data_preprocessor": data_preprocessor, **model}
    return MODELS.build(model, path="model")


def build_visualizer(cfg: Any, work_dir: Path) -> Any:
    """The visualizer, or None; its pictures and records go to the work_dir where it names no place."""
    if cfg is not None and not is_first():
        return SilentVisualizer()
    if not isinstance(cfg, Mapping):
        return cfg
    kind = cfg.get("type")
    if isinstance(kind, str) and kind in VISUALIZERS:
        kind = VISUALIZERS.get(kind)
    takes_place = callable(kind) and "save_dir" in inspect.signature(kind).parameters
    defaults = {"save_dir": str(work_dir / "vis_data")} if takes_place else {}
    return VISUALIZERS.build(cfg, path="visualizer", **defaults)


def build_hooks(
    changes: Mapping[str, Any], custom: Sequence, log_processor: Mapping[str, Any]
) -> list[Hook]:
    """The built-in hooks as `changes` has them by name (None removes one), then `custom`, by priority.

    The settings of `log_processor` are the logger's.
    """
    named: dict[str, Any] = {name: dict(cfg) for name, cfg in DEFAULT_HOOKS.items()}
    named["logger"] |= {key: value for key, value in log_processor.items() if key != "type"}
    for name, change in changes.items():
        if change is None:
            named.pop(name, None)
        elif isinstance(change, Mapping):
            named[name] = {**named.get(name, {}), **change}
        else:
            named[name] = change
    paths = [(f"default_hooks.{name}", cfg) for name, cfg in named.items()]
    paths += [(f"custom_hooks.{i}", cfg) for i, cfg in enumerate(custom)]
    return sorted(
        (build_hook(cfg, path) for path, cfg in paths),
        key=lambda hook: priority_number(hook.priority),
    )


def build_hook(cfg: Any, path: str) -> Hook:
    """One hook; a `priority` beside its `type` overrides the class's."""
    priority = None
    if isinstance(cfg, Mapping):
        cfg = dict(cfg)
        priority = cfg.pop("priority", None)
    hook = HOOKS.build(cfg, path=path)
    missing = [stage for stage in STAGES if not hasattr(hook, stage)]
    if missing:
        raise ConfigError(path, f"{type(hook).__name__} is no Hook: it has no {missing[0]}")
    if priority is not None:
        hook.priority = priority
    try:
        priority_number(hook.priority)
    except ValueError as error:
        raise ConfigError(f"{path}.priority", str(error)) from None
    return hook
