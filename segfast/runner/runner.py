"""Runner: owns the objects of a run, builds them from a config, and calls the loops."""

# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segfast._native import build_info
from segfast.config import dump_config
from segfast.errors import ConfigError, UserError
from segfast.registry import MODELS, VISUALIZERS
from segfast.runner.build import build_hook, build_hooks, build_loop, build_schedulers, check_group
from segfast.runner.builtin_hooks import IterTimerHook
from segfast.runner.checkpoint import load_checkpoint, load_weights
from segfast.runner.checkpoint_hook import CheckpointHook
from segfast.runner.defaults import with_defaults
from segfast.runner.environment import choose_device, seed_everything
from segfast.runner.hooks import Hook, acts_at, priority_number
from segfast.runner.log import RunLog
from segfast.runner.optim_build import build_optim_wrapper
from segfast.runner.resume import load_or_resume, save_run


class Runner:
    """Train, validate and test a model.

    Every argument is a config (a dict) or the object itself; keys and meanings are MMEngine's. Dataloaders, loops,
    optimiser and schedulers are built when they are first needed.

    Args:
        model: a BaseModel, or its config.
        work_dir: folder for everything a run leaves behind; created.
        train_dataloader, train_cfg, optim_wrapper: given together or not at all; so are the two groups below.
        val_dataloader, val_cfg, val_evaluator: validation during training.
        test_dataloader, test_cfg, test_evaluator: `Runner.test`.
        param_scheduler: one or a list.
        default_hooks: replaces settings of the built-in hooks by name (timer, sampler_seed, visualization, logger,
            param_scheduler, checkpoint); None removes one.
        custom_hooks: more hooks.
        load_from: checkpoint whose weights to start from, or to resume from.
        resume: continue a run exactly: from `load_from`, else from work_dir's last checkpoint.
        visualizer: draws the validation pictures.
        randomness: dict(seed=None, deterministic=False).
        device: "cpu", "cuda", "cuda:1", ...; None takes the GPU if there is one.
        quiet: write the files, print nothing.
        cfg: the resolved config, kept in checkpoints and as work_dir/config.yaml.

    Raises:
        ConfigError: a key is wrong, a group is incomplete; the text starts with the key's path.
    """

    def __init__(
        self,
        model: nn.Module | Mapping,
        work_dir: str | Path,
        train_dataloader: Any = None,
        val_dataloader: Any = None,
        test_dataloader: Any = None,
        train_cfg: Any = None,
        val_cfg: Any = None,
        test_cfg: Any = None,
        optim_wrapper: Any = None,
        param_scheduler: Any = None,
        val_evaluator: Any = None,
        test_evaluator: Any = None,
        default_hooks: Mapping | None = None,
        custom_hooks: Sequence | None = None,
        load_from: str | Path | None = None,
        resume: bool = False,
        visualizer: Any = None,
        randomness: Mapping | None = None,
        device: str | torch.device | None = None,
        experiment_name: str | None = None,
        quiet: bool = False,
        cfg: Mapping | None = None,
    ) -> None:
        """Seed, open the log, build the model and the hooks."""
        check_group("train", train_dataloader, train_cfg, optim_wrapper, "optim_wrapper")
        check_group("val", val_dataloader, val_cfg, val_evaluator, "val_evaluator")
        check_group("test", test_dataloader, test_cfg, test_evaluator, "test_evaluator")
        if param_scheduler is not None and optim_wrapper is None:
            raise ConfigError("param_scheduler", "given without optim_wrapper")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                "several processes are not supported yet (hint: start one process, without torchrun)"
            )
        self.cfg = dict(cfg or {})
        self.seed = seed_everything(randomness or {})
        self.work_dir = Path(work_dir)
        self._parts = {
            "train": (train_dataloader, train_cfg, None),
            "val": (val_dataloader, val_cfg, val_evaluator),
            "test": (test_dataloader, test_cfg, test_evaluator),
        }
        self._optim_cfg, self._scheduler_cfg = optim_wrapper, param_scheduler
        self.optim_wrapper: Any = None
        self.param_schedulers: list = []
        self.train_loop: Any = None
        self.val_loop: Any = None
        self.test_loop: Any = None
        self.metrics: dict = {}
        self.load_from, self.resume = load_from, resume
        self.device = choose_device(device)
        self.model = MODELS.build(model, path="model").to(self.device)
        self.visualizer = (
            None if visualizer is None else VISUALIZERS.build(visualizer, path="visualizer")
        )
        self.hooks = build_hooks(default_hooks or {}, custom_hooks or [])
        self._acting: dict[str, list[Hook]] = {}  # stage -> the hooks that do something there
        try:
            self.work_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("work_dir", f"cannot create {work_dir}: {error.strerror}") from error
        self.log = RunLog(self.work_dir, quiet)

    @classmethod
    def from_cfg(cls, cfg: Mapping[str, Any], **overrides: Any) -> "Runner":
        """Build a Runner from a config's top-level keys, defaults filled in."""
        full = with_defaults({**cfg, **overrides})
        if full.get("model") is None:
            raise ConfigError("model", "missing: dict(type='Segmentor', net=..., num_classes=...)")
        full.setdefault("work_dir", "work_dirs/run")
        quiet = full.pop("quiet", False)
        return cls(
            **full,
            quiet=quiet,
            cfg={key: value for key, value in full.items() if key not in ("resume", "load_from")},
        )

    @property
    def iter(self) -> int:
        """Iterations done."""
        return self.train_loop.iter if self.train_loop else 0

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.train_loop.epoch if self.train_loop else 0

    @property
    def max_iters(self) -> int:
        """Iterations of the whole training."""
        return self.train_loop.max_iters if self.train_loop else 0

    @property
    def max_epochs(self) -> int:
        """Epochs of the whole training."""
        return self.train_loop.max_epochs if self.train_loop else 0

    @property
    def timer(self) -> IterTimerHook:
        """The hook that measures iterations."""
        return (
            next((hook for hook in self.hooks if isinstance(hook, IterTimerHook)), None)
            or IterTimerHook()
        )

    @property
    def checkpoint_hook(self) -> CheckpointHook | None:
        """The hook that saves, if there is one."""
        return next((hook for hook in self.hooks if isinstance(hook, CheckpointHook)), None)

    def train(self) -> nn.Module:
        """Train to the end and return the model."""
        if self._parts["train"][0] is None:
            raise ConfigError("train_dataloader", "missing, there is nothing to train on")
        self.train_loop = build_loop(self, "train", *self._parts["train"])
        self.optim_wrapper = build_optim_wrapper(self.model, self._optim_cfg)
        self.param_schedulers = build_schedulers(self, self._scheduler_cfg)
        self.val_loop = build_loop(self, "val", *self._parts["val"])
        self.log.info(self._greeting())
        if self.cfg:
            (self.work_dir / "config.yaml").write_text(dump_config(self.cfg), encoding="utf-8")
        self.call_hook("before_run")
        load_or_resume(self)
        self.optim_wrapper.initialize_count_status(self.model, self.iter, self.max_iters)
        try:
            self.train_loop.run()
            self.call_hook("after_run")
        finally:
            self.log.close()
        return self.model

    def val(self) -> dict:
        """Validate once; returns the metrics."""
        self.val_loop = build_loop(self, "val", *self._parts["val"])
        return self._evaluate(self.val_loop, "val_dataloader")

    def test(self) -> dict:
        """Test once; returns the metrics."""
        self.test_loop = build_loop(self, "test", *self._parts["test"])
        return self._evaluate(self.test_loop, "test_dataloader")

    def call_hook(self, stage: str, **kwargs: Any) -> None:
        """Call every hook that acts at a point, in order of priority."""
        if stage not in self._acting:
            self._acting[stage] = [hook for hook in self.hooks if acts_at(hook, stage)]
        for hook in self._acting[stage]:
            getattr(hook, stage)(self, **kwargs)

    def register_hook(self, hook: Hook | Mapping, priority: str | int | None = None) -> None:
        """Add a hook behind those of equal priority."""
        built = build_hook(hook, "hooks")
        if priority is not None:
            built.priority = priority
        self.hooks = sorted([*self.hooks, built], key=lambda h: priority_number(h.priority))
        self._acting = {}

    def save_checkpoint(
        self,
        path: Path,
        *,
        step: int | None = None,
        epoch: int | None = None,
        weights_only: bool = False,
    ) -> None:
        """Write the state of the run; `weights_only` leaves out optimiser, schedulers and random states."""
        save_run(self, path, step=step, epoch=epoch, weights_only=weights_only)

    def _evaluate(self, loop: Any, key: str) -> dict:
        if loop is None:
            raise ConfigError(key, "missing")
        if self.load_from is not None:
            load_weights(self.model, load_checkpoint(self.load_from, self.device), self.load_from)
        try:
            return loop.run()
        finally:
            self.log.close()

    def _greeting(self) -> str:
        facts = build_info()
        parameters = sum(p.numel() for p in self.model.parameters())
        data = len(self.train_loop.dataloader.dataset)
        return (
            f"segfast {facts['version']} with torch {torch.__version__} on {self.device} "
            f"({facts['cpu_capability']}, CUDA kernels {facts['cuda_status']}): "
            f"{parameters / 1e6:.2f} M parameters, {data} training images, {self.max_iters} iterations, "
            f"seed {self.seed}, results in {self.work_dir}"
        )
