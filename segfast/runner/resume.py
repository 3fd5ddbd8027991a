"""Going on from a saved state as if nothing had happened."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segfast.distributed import is_first, share, world
from segfast.distributed.sharded import as_sharded
from segfast.errors import CheckpointError
from segfast.models.distributed import unwrapped
from segfast.runner.checkpoint import (
    load_checkpoint,
    load_weights,
    set_random_state,
)
from segfast.runner.environment import seed_generators


def load_or_resume(runner: Any, training: bool = True) -> None:
    """Start from `load_from`'s weights, or continue a run exactly where its checkpoint was written.

    Without `training` only weights are loaded.
    """
    found = _find(runner, training) if is_first() else None
    source = share(found and found[0])  # the first process decides
    if source is None:
        return
    checkpoint = (
        found[1] if found else load_checkpoint(source, runner.device, runner.trust_checkpoint)
    )
    runner.resumed_from = source if runner.resume and training else None
    runner.call_hook("after_load_checkpoint", checkpoint=checkpoint)  # hooks may change the weights
    strict = bool(runner.resume) or not training
    different = load_weights(unwrapped(runner.model), checkpoint, source, strict=strict)
    if different:
        runner.log.info(
            f"{source}: {len(different)} keys did not match, the first is {different[0]}"
        )
    if not runner.resume or not training:
        return
    _resume(runner, checkpoint, source)
    runner.log.info(
        f"resumed {source} at iteration {runner.iter}{_what_changed(runner, checkpoint)}"
    )


def _resume(runner: Any, checkpoint: dict[str, Any], source: Path) -> None:
    """Put everything but the weights where it was."""
    if "optimizer" not in checkpoint or "param_schedulers" not in checkpoint:
        raise CheckpointError(
            f"{source} holds weights only, it cannot be resumed (hint: load_from without resume)"
        )
    if "random" not in checkpoint:
        raise CheckpointError(
            f"{source} is no checkpoint of segfast, its run cannot be resumed (hint: load_from without resume)"
        )
    loop, meta = runner.train_loop, checkpoint["meta"]
    loop.go_on_from(meta)
    runner.metrics = dict(meta.get("metrics", {}))
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
    runner.optim_wrapper.grad_norm = checkpoint.get("grad_norm")
    gradients = checkpoint.get("gradients", {})
    for name, parameter in unwrapped(runner.model).named_parameters():
        gradient = gradients.get(name)
        parameter.grad = (
            None if gradient is None else as_sharded(gradient, parameter).to(parameter.device)
        )
    _take_own(runner, [checkpoint, *checkpoint.get("others", [])])
    runner.log.forget(lambda record: _is_past(record, loop))


def _what_changed(runner: Any, checkpoint: Mapping[str, Any]) -> str:
    """What a resume by more or fewer processes means."""
    before, now = len(checkpoint.get("others", [])) + 1, world()[1]
    if before == now:
        return ""
    per_iter = runner.train_loop.samples_per_iter
    was = checkpoint["meta"].get("place", {}).get("per_iter", per_iter)
    size = "as many samples" if was == per_iter else f"{per_iter} samples instead of {was}"
    text = (
        f"; {now} processes go on where {before} stopped, with {size} an iteration: data and augmentation are the "
        "same, they depend on (seed, epoch, sample)"
    )
    if now > before:
        text += f"; the other random streams (dropout, mixed batches) of processes {before} to {now - 1} start afresh"
    return text


def _find(runner: Any, training: bool) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to start from and its content; of a work_dir to resume, the newest that can be read.

    Raises:
        CheckpointError: the one that was named cannot be read, or none of several.
    """
    if runner.load_from is not None:
        named = Path(runner.load_from)
        return named, load_checkpoint(named, runner.device, runner.trust_checkpoint)
    if not runner.resume:
        return None
    candidates = _candidates(Path(runner.work_dir))
    damaged: list[str] = []
    for path in candidates:
        try:
            checkpoint = load_checkpoint(path, runner.device)
        except CheckpointError as error:
            runner.log.warning(f"{error}; trying the one before")
            damaged.append(path.name)
            continue
        if not training or "random" in checkpoint:  # not the weights of somebody else
            return path, checkpoint
    if damaged:
        raise CheckpointError(
            f"none of {', '.join(damaged)} in {runner.work_dir} can be read (hint: delete them to start from the "
            "beginning)"
        )
    runner.log.info(f"nothing to resume in {runner.work_dir}: starting from the beginning")
    return None


def _candidates(work_dir: Path) -> list[Path]:
    """What a run may have saved, newest first: files of `work_dir` and of the folder its `last_checkpoint` names."""
    folders, suffixes = {work_dir}, {".pth"}
    pointer = work_dir / "last_checkpoint"
    if pointer.is_file():
        named = Path(pointer.read_text(encoding="utf-8", errors="replace").strip())
        folders.add(named.parent)
        suffixes.add(named.suffix)
    found = {
        path.resolve()
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.suffix in suffixes
    }
    regular = [path for path in found if not path.name.startswith(("best_", "nonfinite_", "."))]
    return sorted(regular, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _take_own(runner: Any, saved: Sequence[Mapping[str, Any]]) -> None:
    """What each process has for itself: its random streams, and its share of the next log line."""
    rank, processes = world()
    if rank < len(saved):
        runner.message_hub.resume(saved[rank].get("message_hub", {}))
        set_random_state(saved[rank]["random"])
    else:
        seed_generators(runner.seed + runner.iter * processes + rank)


def _is_past(record: Mapping[str, Any], loop: Any) -> bool:
    """Whether a resumed run will not write that record of the metrics again."""
    if record["mode"] == "val" and record["step"] > loop.validated:
        return False
    return record["iter"] <= loop.iter
