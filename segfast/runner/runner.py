"""Runner: owns the objects of a run, builds them from a config, and calls the loops."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segfast.config import dump_config, load_config
from segfast.distributed import is_first
from segfast.distributed.launch import all_fail_with_one, tell_failures_to
from segfast.errors import ConfigError
from segfast.models.distributed import unwrapped
from segfast.runner.atomic_file import write_atomically
from segfast.runner.build import (
    build_hook,
    build_hooks,
    build_loop,
    build_model,
    build_schedulers,
    build_visualizer,
    check_groups,
)
from segfast.runner.builtin_hooks import IterTimerHook
from segfast.runner.checkpoint_hook import CheckpointHook
from segfast.runner.compiled import compile_forward
from segfast.runner.defaults import with_defaults
from segfast.runner.environment import (
    greeting,
    join_processes,
    seed_everything,
    set_up_environment,
)
from segfast.runner.hooks import Hook, acts_at, priority_number
from segfast.runner.log import RunLog
from segfast.runner.message_hub import MessageHub
from segfast.runner.optim_build import build_optim_wrapper, scale_lr
from segfast.runner.resume import load_or_resume
from segfast.runner.save import save_run
from segfast.runner.stop_signals import StopSignals, train_until_stopped
from segfast.runner.wrap import init_weights, shards, wrap_model

NOT_TOLD = (
    "resume",
    "load_from",
    "quiet",
    "trust_checkpoint",
)  # how this run was called, not what it is


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
        auto_scale_lr: dict(enable=True, base_batch_size=16): multiply learning rates by real / base batch size.
        param_scheduler: one or a list; for several optimisers a dict of those.
        default_hooks: replaces settings of the built-in hooks by name (runtime_info, timer, sampler_seed,
            visualization, logger, param_scheduler, checkpoint); None removes one.
        custom_hooks: more hooks.
        data_preprocessor: the model's, where its config has none.
        load_from: checkpoint whose weights to start from, or to resume from.
        resume: continue a run exactly: from `load_from`, else from work_dir's last checkpoint.
        env_cfg: dict(cudnn_benchmark=False, max_pixels=178956970, dist_cfg=dict(backend="nccl", timeout=seconds));
            mp_cfg and resource_limit may stay.
        log_processor: dict(window_size, num_digits, by_epoch) of the LoggerHook.
        visualizer: draws the validation pictures, and takes scalars if it has `add_scalars`.
        randomness: dict(seed=None, deterministic=False, diff_rank_seed=False).
        experiment_name: kept in checkpoints.
        cfg: the resolved config, kept in checkpoints and as work_dir/config.yaml.
        custom_imports: dict(imports=["my.module"], allow_failed_imports=False), imported before anything is built.
        device: "cpu", "cuda", "cuda:1", ...; None takes the GPU if there is one.
        quiet: write the files, print nothing.
        trust_checkpoint: unpickle `load_from` whatever it holds, which can run any program; no key of a config.
        launcher: "slurm" or "mpi" where one of them started several processes; torchrun needs no word.
        model_wrapper_cfg: with several processes, dict(type="MMDistributedDataParallel") or dict(type="FSDP"), and
            their arguments.
        sync_bn: with several processes on CUDA, batch norm over all of them.
        find_unused_parameters: with several processes, for models of which some parameters get no gradient.
        compile: True, or a dict of torch.compile's arguments: compile the forward pass of training.
        log_level, default_scope: may stay in a config.
        activation_checkpointing, efficient_conv_bn_eval, runner_type: do nothing here; a warning says so.

    Raises:
        ConfigError: a key is wrong, a group is incomplete; the text starts with the key's path.
    """

    train_loop: Any = None
    val_loop: Any = None
    test_loop: Any = None
    optim_wrapper: Any = None
    resumed_from: Path | None = None  # the checkpoint this run goes on from

    @all_fail_with_one
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
        auto_scale_lr: Mapping | None = None,
        optim_wrapper: Any = None,
        param_scheduler: Any = None,
        val_evaluator: Any = None,
        test_evaluator: Any = None,
        default_hooks: Mapping | None = None,
        custom_hooks: Sequence | None = None,
        data_preprocessor: Any = None,
        load_from: str | Path | None = None,
        resume: bool = False,
        launcher: str = "none",
        env_cfg: Mapping | None = None,
        log_processor: Mapping | None = None,
        log_level: str | int = "INFO",
        visualizer: Any = None,
        default_scope: str | None = None,
        randomness: Mapping | None = None,
        experiment_name: str | None = None,
        cfg: Mapping | None = None,
        *,
        custom_imports: Mapping | None = None,
        device: str | torch.device | None = None,
        quiet: bool = False,
        trust_checkpoint: bool = False,
        model_wrapper_cfg: Mapping | None = None,
        sync_bn: str | bool | None = None,
        find_unused_parameters: bool = False,
        compile: bool | Mapping | None = None,
        activation_checkpointing: Any = None,
        efficient_conv_bn_eval: Any = None,
        runner_type: str | None = None,
    ) -> None:
        """Seed, open the log, build the model and the hooks."""
        self._parts = {
            "train": (train_dataloader, train_cfg, optim_wrapper),
            "val": (val_dataloader, val_cfg, val_evaluator),
            "test": (test_dataloader, test_cfg, test_evaluator),
        }
        check_groups(self._parts, param_scheduler)
        set_up_environment(env_cfg or {}, launcher, custom_imports or {})
        self.cfg = dict(cfg or {})
        self.device = join_processes(env_cfg or {}, device)
        self.seed = seed_everything(randomness or {})
        self.work_dir = Path(work_dir)
        self.experiment_name = experiment_name or self.work_dir.name
        self._scheduler_cfg, self._auto_scale_lr = param_scheduler, auto_scale_lr or {}
        self.message_hub = MessageHub()
        self.param_schedulers: list = []
        self.metrics: dict = {}
        self.load_from, self.resume, self._loaded = load_from, resume, False
        self.trust_checkpoint = trust_checkpoint
        self.model: Any = build_model(model, data_preprocessor).to(self.device)
        told = compile_forward(self.model, compile)
        self._initialised = False
        if shards(model_wrapper_cfg) and train_dataloader is not None:
            self.init_weights()
        self.model = wrap_model(self.model, model_wrapper_cfg, sync_bn, find_unused_parameters)
        self.visualizer = build_visualizer(visualizer, self.work_dir)
        self.hooks = build_hooks(default_hooks or {}, custom_hooks or [], log_processor or {})
        self._actions: dict[str, list[Callable]] = {}  # stage -> what its hooks do there
        self.log = self.logger = RunLog(self.work_dir, quiet)
        tell_failures_to(self.log.file_only)
        if told:
            self.log.info(told)
        self._warn_of_unused(
            activation_checkpointing=activation_checkpointing,
            efficient_conv_bn_eval=efficient_conv_bn_eval,
            runner_type=None if runner_type == "Runner" else runner_type,
        )
        self.stop = StopSignals()

    @classmethod
    def from_cfg(cls, cfg: Any, **overrides: Any) -> "Runner":
        """Build a Runner from a config, its defaults filled in.

        Args:
            cfg: what `segfast.config.load_config` reads: a dict, an mmengine Config, a file.
            overrides: replace top-level keys.
        """
        full = with_defaults({**load_config(cfg), **overrides})
        if full.get("model") is None:
            raise ConfigError("model", "missing: dict(type='Segmentor', net=..., num_classes=...)")
        full.setdefault("work_dir", "work_dirs/run")
        told = {key: value for key, value in full.items() if key not in NOT_TOLD}
        return cls(**full, cfg=told)

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
        found = (hook for hook in self.hooks if isinstance(hook, IterTimerHook))
        return next(found, None) or IterTimerHook()

    @property
    def checkpoint_hook(self) -> CheckpointHook | None:
        """The hook that saves, if there is one."""
        return next((hook for hook in self.hooks if isinstance(hook, CheckpointHook)), None)

    @property
    def train_dataloader(self) -> Any:
        """What training reads, once it is built."""
        return self.train_loop.dataloader if self.train_loop else None

    @property
    def val_dataloader(self) -> Any:
        """What validation reads, once it is built."""
        return self.val_loop.dataloader if self.val_loop else None

    @all_fail_with_one
    def train(self) -> nn.Module:
        """Train to the end and return the model."""
        if self._parts["train"][0] is None:
            raise ConfigError("train_dataloader", "missing, there is nothing to train on")
        self.train_loop = build_loop(self, "train", *self._parts["train"])
        self.optim_wrapper = build_optim_wrapper(unwrapped(self.model), self._parts["train"][2])
        self._scale_lr()
        self.param_schedulers = build_schedulers(self, self._scheduler_cfg)
        self.val_loop = build_loop(self, "val", *self._parts["val"])
        self.log.info(greeting(self))
        if self.cfg and is_first():
            text = dump_config(self.cfg).encode()
            write_atomically(self.work_dir / "config.yaml", lambda file: file.write(text))
        self.call_hook("before_run")
        self.optim_wrapper.initialize_count_status(self.model, 0, self.max_iters)
        self._load()
        try:
            train_until_stopped(self)
            self.call_hook("after_run")
        finally:
            self._close()
        return self.model

    @all_fail_with_one
    def val(self) -> dict:
        """Validate once; returns the metrics."""
        self.val_loop = build_loop(self, "val", *self._parts["val"])
        return self._evaluate(self.val_loop, "val_dataloader")

    @all_fail_with_one
    def test(self) -> dict:
        """Test once; returns the metrics."""
        self.test_loop = build_loop(self, "test", *self._parts["test"])
        return self._evaluate(self.test_loop, "test_dataloader")

    def init_weights(self) -> None:
        """Initialise the model as it says itself, once; what it starts from is loaded behind that."""
        if not self._initialised:
            init_weights(self.model)
        self._initialised = True

    def call_hook(self, stage: str, **kwargs: Any) -> None:
        """Call every hook that acts at a point, in order of priority."""
        if stage not in self._actions:
            acting = [hook for hook in self.hooks if acts_at(hook, stage)]
            self._actions[stage] = [getattr(hook, stage) for hook in acting]
        for act in self._actions[stage]:
            act(self, **kwargs)

    def register_hook(self, hook: Hook | Mapping, priority: str | int | None = None) -> None:
        """Add a hook behind those of equal priority."""
        built = build_hook(hook, "hooks")
        if priority is not None:
            built.priority = priority
        self.hooks = sorted([*self.hooks, built], key=lambda h: priority_number(h.priority))
        self._actions = {}

    def save_checkpoint(
        self,
        path: Path,
        *,
        step: int | None = None,
        epoch: int | None = None,
        weights_only: bool = False,
        without: Sequence[str] = (),
    ) -> None:
        """Write the state of the run; `weights_only` leaves out all but weights and meta, `without` those parts."""
        save_run(self, path, step=step, epoch=epoch, weights_only=weights_only, without=without)

    def _warn_of_unused(self, **given: Any) -> None:
        """Keys of MMEngine's that have no meaning here."""
        for key, value in given.items():
            if value:
                self.log.warning(f"{key}={value!r} does nothing here")

    def _evaluate(self, loop: Any, key: str) -> dict:
        if loop is None:
            raise ConfigError(key, "missing")
        self.call_hook("before_run")
        if not self._loaded:  # what was trained here is not replaced by what it started from
            self._load(training=False)
        try:
            metrics = loop.run()
            self.call_hook("after_run")
        finally:
            self._close()
        return metrics

    def _close(self) -> None:
        """Close the log's files and end all worker processes."""
        self.log.close()
        for loop in (self.train_loop, self.val_loop, self.test_loop):
            if hasattr(getattr(loop, "dataloader", None), "close"):
                loop.dataloader.close()

    def _load(self, training: bool = True) -> None:
        load_or_resume(self, training)
        self._loaded = True

    def _scale_lr(self) -> None:
        """The learning rate for the real batch size, where `auto_scale_lr` is enabled."""
        if self._auto_scale_lr.get("enable"):
            scale_lr(self.optim_wrapper, self._auto_scale_lr, self.train_loop.samples_per_iter)
