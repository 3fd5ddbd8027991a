"""Where a run computes, and what its random numbers are."""

# SPDX-License-Identifier: Apache-2.0

import importlib
import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from segfast._native import build_info
from segfast.datasets.images import MAX_PIXELS_VARIABLE, max_pixels
from segfast.errors import ConfigError, UserError
from segfast.registry import did_you_mean

_ENV_KEYS = ("cudnn_benchmark", "max_pixels", "mp_cfg", "dist_cfg", "resource_limit")
_LAUNCHERS = ("none", "pytorch", "slurm", "mpi")
_RANDOMNESS_KEYS = ("seed", "deterministic", "diff_rank_seed")


def set_up_environment(
    env_cfg: Mapping[str, Any], launcher: str, custom_imports: Mapping[str, Any]
) -> None:
    """Import what registers types, take from `env_cfg` what has a meaning here; refuse what cannot run.

    Raises:
        ConfigError: an unknown key or launcher, a module that cannot be imported.
        UserError: several processes.
    """
    for key in env_cfg:
        if key not in _ENV_KEYS:
            raise ConfigError(f"env_cfg.{key}", f"unknown{did_you_mean(key, _ENV_KEYS)}")
    if launcher not in _LAUNCHERS:
        raise ConfigError("launcher", f"expected one of {', '.join(_LAUNCHERS)}, got {launcher!r}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "several processes are not supported yet (hint: start one process, without torchrun)"
        )
    if "cudnn_benchmark" in env_cfg:
        torch.backends.cudnn.benchmark = bool(env_cfg["cudnn_benchmark"])
    if "max_pixels" in env_cfg:
        os.environ[MAX_PIXELS_VARIABLE] = str(env_cfg["max_pixels"])
        max_pixels()  # a wrong one is refused now
    names = custom_imports.get("imports") or []
    for name in [names] if isinstance(names, str) else names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if not custom_imports.get("allow_failed_imports"):
                raise ConfigError("custom_imports.imports", f"{name}: {error}") from error


def greeting(runner: Any) -> str:
    """The first line of a training: what runs where."""
    facts = build_info()
    parameters = sum(p.numel() for p in runner.model.parameters())
    data = len(runner.train_dataloader.dataset)
    return (
        f"segfast {facts['version']} with torch {torch.__version__} on {runner.device} "
        f"({facts['cpu_capability']}, CUDA kernels {facts['cuda_status']}): "
        f"{parameters / 1e6:.2f} M parameters, {data} training images, {runner.max_iters} iterations, "
        f"seed {runner.seed}, results in {runner.work_dir}"
    )


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; None takes the GPU if there is one, of several the one for this process.

    Raises:
        ConfigError: the name means nothing to torch, or the machine has no such device.
    """
    if device is None:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError("device", f"torch cannot use {str(device)!r} here ({reason})") from error
    return chosen


def seed_everything(randomness: Mapping[str, Any]) -> int:
    """Seed every generator of this process from dict(seed=None, deterministic=False).

    Returns:
        The seed; a fresh one where none was given.

    Raises:
        ConfigError: an unknown key, or a seed that is no integer.
    """
    for key in randomness:
        if key not in _RANDOMNESS_KEYS:
            hint = did_you_mean(key, _RANDOMNESS_KEYS)
            raise ConfigError(f"randomness.{key}", f"unknown{hint}")
    seed = randomness.get("seed")
    if seed is None:
        seed = random.SystemRandom().randrange(2**31)
    if not isinstance(seed, int) or seed < 0:
        raise ConfigError("randomness.seed", f"expected an integer >= 0, got {seed!r}")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if randomness.get("deterministic"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True)
    return seed
