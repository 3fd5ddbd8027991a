"""Where a run computes, and what its random numbers are."""

# SPDX-License-Identifier: Apache-2.0

import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from segfast.errors import ConfigError
from segfast.registry import did_you_mean

_RANDOMNESS_KEYS = ("seed", "deterministic", "diff_rank_seed")


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
