"""From configs to the parts of a run: loops with their dataloaders, schedulers, hooks."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping, Sequence
from typing import Any

from segfast.datasets.loader import build_dataloader
from segfast.errors import ConfigError
from segfast.evaluation import Evaluator
from segfast.registry import HOOKS, LOOPS, PARAM_SCHEDULERS
from segfast.runner.defaults import HOOKS as DEFAULT_HOOKS
from segfast.runner.hooks import STAGES, Hook, priority_number
from segfast.runner.optim_dict import OptimWrapperDict


def check_group(mode: str, dataloader: Any, loop: Any, third: Any, third_name: str) -> None:
    """Data, loop and optimiser (or evaluator) come together or not at all."""
    given = {f"{mode}_dataloader": dataloader, f"{mode}_cfg": loop, third_name: third}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        present = " and ".join(name for name in given if name not in missing)
        raise ConfigError(missing[0], f"missing, but {present} is given (they belong together)")


def build_loop(runner: Any, mode: str, dataloader_cfg: Any, loop_cfg: Any, evaluator: Any) -> Any:
    """The loop of a mode with its dataloader, or None where there is no data for it.

    Iteration-based training reads one endless stream, everything else whole passes.
    """
    if dataloader_cfg is None:
        return None
    endless = mode == "train" and isinstance(loop_cfg, Mapping)
    endless = endless and loop_cfg.get("type") == "IterBasedTrainLoop"
    sampler = {
        "type": "InfiniteSampler" if endless else "DefaultSampler",
        "shuffle": mode == "train",
    }
    dataloader = build_dataloader(
        dataloader_cfg, seed=runner.seed, path=f"{mode}_dataloader", default_sampler=sampler
    )
    arguments = {"runner": runner, "dataloader": dataloader}
    if mode != "train":
        try:  # metrics know their own keys only
            arguments["evaluator"] = (
                evaluator if isinstance(evaluator, Evaluator) else Evaluator(evaluator)
            )
        except ConfigError as error:
            raise error.under(f"{mode}_evaluator") from None
    return LOOPS.build(loop_cfg, path=f"{mode}_cfg", **arguments)


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
            cfg = _iter_based(_with_end(dict(cfg), runner), len(runner.train_loop.dataloader), here)
        built.append(PARAM_SCHEDULERS.build(cfg, path=here, optimizer=optimizer))
    return built


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


def build_hooks(changes: Mapping[str, Any], custom: Sequence) -> list[Hook]:
    """The built-in hooks as `changes` has them by name (None removes one), then `custom`, by priority."""
    named: dict[str, Any] = {name: dict(cfg) for name, cfg in DEFAULT_HOOKS.items()}
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
    return hook
