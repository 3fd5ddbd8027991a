"""From what a launcher says to processes that know each other: torchrun, Slurm's srun, mpirun."""

# SPDX-License-Identifier: Apache-2.0

import atexit
import datetime
import functools
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from segfast.distributed.wire import Wire
from segfast.errors import ConfigError, UserError

# launcher -> its variables for rank, number of processes, rank on this machine
_VARIABLES = {
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
LAUNCHERS = ("none", *_VARIABLES)
_DIST_KEYS = ("backend", "timeout", "init_backend")
_BACKENDS = ("gloo", "nccl")


class _Joined(NamedTuple):
    store: Any
    rank: int
    processes: int
    wire: Wire


_joined: _Joined | None = None


def join(launcher: str = "none") -> None:
    """Connect the processes of this run, where a launcher has started several; nothing for one.

    From here on a failure in one of them ends all of them. A process group of the caller's own
    is left alone. Warnings are the first process's.

    Args:
        launcher: "slurm" or "mpi" where one of these started the processes; torchrun's variables are always read.

    Raises:
        UserError: the processes cannot find each other.
    """
    global _joined
    if _joined is not None or not dist.is_available() or dist.is_initialized():
        return
    _take_variables(launcher)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    try:
        store, rank, processes = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        wire = Wire(store, rank, processes, os.environ["MASTER_ADDR"])
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"WORLD_SIZE says {os.environ['WORLD_SIZE']} processes, but they do not find each other: "
            f"{' '.join(str(error).split())} (hint: torchrun --nproc-per-node N --no-python segfast train CONFIG)"
        ) from error
    _joined = _Joined(store, rank, processes, wire)
    if rank:
        warnings.simplefilter("ignore")  # the first process says them
    atexit.register(_leave_at_exit)


def open_group(dist_cfg: Mapping[str, Any], device: torch.device) -> None:
    """The process group of the processes that have joined.

    Args:
        dist_cfg: dict(backend="nccl" | "gloo", timeout=seconds). On the CPU it is gloo in any case. On CUDA the
            default is nccl for what lies there, with gloo beside it for the small things that do not.
        device: of this process.

    Raises:
        ConfigError: an unknown key, or a backend that this torch does not have.
    """
    for key in dist_cfg:
        if key not in _DIST_KEYS:
            raise ConfigError(
                f"env_cfg.dist_cfg.{key}", f"unknown, there are {', '.join(_DIST_KEYS)}"
            )
    backend, seconds = dist_cfg.get("backend") or "nccl", dist_cfg.get("timeout")
    if backend not in _BACKENDS:
        raise ConfigError(
            "env_cfg.dist_cfg.backend", f"expected one of {', '.join(_BACKENDS)}, got {backend!r}"
        )
    if seconds is not None and (not isinstance(seconds, (int, float)) or seconds <= 0):
        raise ConfigError("env_cfg.dist_cfg.timeout", f"expected seconds, got {seconds!r}")
    if _joined is None or dist.is_initialized():
        return
    if device.type != "cuda":
        backend = "gloo"
    else:
        torch.cuda.set_device(device)
        if backend == "nccl":
            if not dist.is_nccl_available():
                raise ConfigError(
                    "env_cfg.dist_cfg.backend", "this torch has no nccl (hint: backend='gloo')"
                )
            backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("segfast/group", _joined.store),
        rank=_joined.rank,
        world_size=_joined.processes,
        timeout=None if seconds is None else datetime.timedelta(seconds=seconds),
    )


def local_rank() -> int:
    """Which of this machine's processes this is."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def all_fail_with_one(function: Callable) -> Callable:
    """A function that all processes call together: an exception that leaves it in one ends the others."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            if _joined is not None:
                _joined.wire.fail(error)
            raise

    return call


def tell_failures_to(note: Callable[[str], None]) -> None:
    """Also write down, in this process, why all processes end."""
    if _joined is not None:
        _joined.wire.note = note


def speaker() -> str:
    """`process 2: ` before what one of several processes says."""
    return "" if _joined is None else f"process {_joined.rank}: "


def leave() -> None:
    """This process is about to end, in agreement with the others."""
    if _joined is not None:
        _joined.wire.leave()


def _leave_at_exit() -> None:
    if getattr(sys, "last_value", None) is None:  # else an exception ends the interpreter
        leave()
        if dist.is_initialized():
            dist.destroy_process_group()
        # gloo's threads outlive the group of a DDP model and may still be dropping tensors, for which they need the
        # interpreter: Python ends a thread that asks while it shuts down, and C++ ends the process with it.
        time.sleep(0.5)


def _take_variables(launcher: str) -> None:
    """Slurm's and MPI's variables as torch's."""
    names = _VARIABLES.get(launcher, ())
    if launcher == "pytorch" or not all(name in os.environ for name in names):
        return
    for name, source in zip(_VARIABLES["pytorch"], names, strict=False):
        os.environ.setdefault(name, os.environ[source])
    if launcher == "slurm" and os.environ.get("SLURM_NNODES", "1") == "1":
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        # Steps of one job may run side by side. Below 32768: the system gives away the ports above.
        job, step = (int(os.environ.get(f"SLURM_{name}_ID", "0")) for name in ("JOB", "STEP"))
        os.environ.setdefault("MASTER_PORT", str(20000 + (job + 101 * step) % 12000))
