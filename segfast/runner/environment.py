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
from segfast.distributed import share, world
from segfast.distributed.launch import LAUNCHERS, join, local_rank, open_group
from segfast.errors import ConfigError
from segfast.registry import did_you_mean

_ENV_KEYS = ("cudnn_benchmark", "max_pixels", "mp_cfg", "dist_cfg", "resource_limit")
_RANDOMNESS_KEYS = ("seed", "deterministic", "diff_rank_seed")


def set_up_environment(
    env_cfg: Mapping[str, Any], launcher: str, custom_imports: Mapping[str, Any]
) -> None:
    """Import what registers types, take from `env_cfg` what has a meaning here; refuse what cannot run.

    Raises:
        ConfigError: an unknown key or launcher, a module that cannot be imported.
    """
    for key in env_cfg:
        if key not in _ENV_KEYS:
            raise ConfigError(f"env_cfg.{key}", f"unknown{did_you_mean(key, _ENV_KEYS)}")
    if launcher not in LAUNCHERS:
        raise ConfigError("launcher", f"expected one of {', '.join(LAUNCHERS)}, got {launcher!r}")
    join(launcher)
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
    processes = f", {world()[1]} processes" if world()[1] > 1 else ""
    return (
        f"segfast {facts['version']} with torch {torch.__version__} on {runner.device}{processes} "
        f"({facts['cpu_capability']}, CUDA kernels {facts['cuda_status']}): "
        f"{parameters / 1e6:.2f} M parameters, {data} training images, {runner.max_iters} iterations, "
        f"seed {runner.seed}, results in {runner.work_dir}"
    )


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; None takes the GPU if there is one, of several the one for this process.

    Raises:
        ConfigError: the name means nothing to torch, or the machine has no such device.
    """
    if device is None and not torch.cuda.is_available():
        return torch.device("cpu")
    if device is None or (str(device) == "cuda" and "LOCAL_RANK" in os.environ):
        own, there = local_rank(), torch.cuda.device_count()
        if own >= there:
            raise ConfigError(
                "device",
                f"process {own} of this machine has no GPU of its own, there are {there} "
                f"(hint: torchrun --nproc-per-node {there}, or device='cpu')",
            )
        return torch.device("cuda", own)
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError("device", f"torch cannot use {str(device)!r} here ({reason})") from error
    return chosen


def join_processes(env_cfg: Mapping[str, Any], device: str | torch.device | None) -> torch.device:
    """Choose the device and open the process group, where a launcher has started several processes.

    Raises:
        ConfigError: all processes would compute on one GPU, or `env_cfg.dist_cfg` is wrong.
    """
    chosen = choose_device(device)
    open_group(env_cfg.get("dist_cfg") or {}, chosen)
    if world()[1] > 1 and chosen.type == "cuda" and chosen.index != local_rank():
        problem = f"{chosen} is one GPU for all processes (hint: leave out the number)"
        raise ConfigError("device", problem)
    return chosen


def seed_everything(randomness: Mapping[str, Any]) -> int:
    """Seed every generator of this process from dict(seed=None, deterministic=False, diff_rank_seed=False).

    With `diff_rank_seed` the rank is added in each process; samplers and augmentation share one seed in any case.

    Returns:
        The seed, the same in all processes; a fresh one where none was given.

    Raises:
        ConfigError: an unknown key, or a seed that is no integer.
    """
    for key in randomness:
        if key not in _RANDOMNESS_KEYS:
            hint = did_you_mean(key, _RANDOMNESS_KEYS)
            raise ConfigError(f"randomness.{key}", f"unknown{hint}")
    seed = randomness.get("seed")
    if seed is None:
        seed = share(random.SystemRandom().randrange(2**31))
    if not isinstance(seed, int) or seed < 0:
        raise ConfigError("randomness.seed", f"expected an integer >= 0, got {seed!r}")
    seed_generators(seed + world()[0] if randomness.get("diff_rank_seed") else seed)
    if randomness.get("deterministic"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True)
    return seed


def seed_generators(seed: int) -> None:
    """Python's, NumPy's and torch's, of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
