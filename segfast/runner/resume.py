"""Going on from a saved state as if nothing had happened."""

# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segfast.distributed import is_first, share, world
from segfast.distributed.sharded import as_sharded
from segfast.errors import CheckpointError
from segfast.models import BaseTTAModel
from segfast.models.distributed import unwrapped
from segfast.runner.checkpoint import (
    load_checkpoint,
    load_weights,
    set_random_state,
)
from segfast.runner.environment import seed_generators
from segfast.runner.optim_dict import optimizer_names, wrappers


def load_or_resume(runner: Any, training: bool = True) -> None:
    """Start from `load_from`'s weights, or continue a run exactly where its checkpoint was written.

    Without `training` only weights are loaded.
    """
    found = _find(runner, training) if is_first() else None
    source = share(found and found[0])  # the first process decides
    if training and not (runner.resume and source):
        runner.init_weights()
    if source is None:
        if runner.resume and training:  # records of a run that was killed before its first save
            runner.log.forget(lambda record: False)
        return
    checkpoint = found[1] if found else load_checkpoint(source, trust=runner.trust_checkpoint)
    runner.resumed_from = source if runner.resume and training else None
    runner.call_hook("after_load_checkpoint", checkpoint=checkpoint)  # hooks may change the weights
    strict = bool(runner.resume) or not training
    different = load_weights(_bare(runner.model), checkpoint, source, strict=strict)
    if different:
        runner.log.warning(
            f"{source}: {len(different)} weights did not fit and stay as they were: {', '.join(different[:8])}"
            f"{', ...' if len(different) > 8 else ''}"
        )
        runner.log.file_only("\n".join(different))
    if not runner.resume or not training:
        return
    _resume(runner, checkpoint, source)
    runner.log.info(
        f"resumed {source} at iteration {runner.iter}{_what_changed(runner, checkpoint)}"
    )


def _bare(model: Any) -> Any:
    """The model whose weights a checkpoint holds: without what wraps it for several processes, or for testing."""
    bare = unwrapped(model)
    return bare.module if isinstance(bare, BaseTTAModel) else bare


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
    _load_optimizer(runner.optim_wrapper, checkpoint, source)
    _count_on(runner, checkpoint)
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


def _load_optimizer(wrapper: Any, checkpoint: Mapping[str, Any], source: Path) -> None:
    """Its state, into an optimiser of the same kind with the same groups."""
    saved, given = checkpoint["meta"].get("optimizer"), optimizer_names(wrapper)
    problem = f"{saved} there, {given} in the config" if saved and saved != given else ""
    if not problem:
        try:
            wrapper.load_state_dict(checkpoint["optimizer"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = " ".join(str(error).split())
    if problem:
        raise CheckpointError(
            f"{source} holds the state of another optimiser ({problem}; hint: resume with the config of that run, or "
            "use load_from without resume)"
        )


def _count_on(runner: Any, checkpoint: Mapping[str, Any]) -> None:
    """Micro-steps of each optimiser; one an iteration unless a model's own `train_step` takes others."""
    parts = wrappers(runner.optim_wrapper)
    counts = checkpoint.get("inner_counts") or [runner.iter] * len(parts)
    for part, count in zip(parts, counts, strict=False):
        part.initialize_count_status(runner.model, count, runner.max_iters)


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
        return named, load_checkpoint(named, trust=runner.trust_checkpoint)
    if not runner.resume:
        return None
    damaged: list[str] = []
    for path in saved_in(Path(runner.work_dir)):
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError as error:
            runner.log.warning(f"{error}; trying the one before")
            damaged.append(path.name)
            continue
        if not training or "random" in checkpoint:  # not the weights of somebody else
            return path, checkpoint
    if damaged:
        raise CheckpointError(
            f"none of {', '.join(damaged)} in {runner.work_dir} can be read (hint: move them away to start from the "
            "beginning)"
        )
    runner.log.info(f"nothing to resume in {runner.work_dir}: starting from the beginning")
    return None


def saved_in(work_dir: Path) -> list[Path]:
    """What a run may have saved, newest first: in `work_dir`, or in the folder that its `last_checkpoint` names.

    Of a copied or moved work_dir the copies count. Their times may be those of the copying: before the file that is
    named comes only what has both a later time and a higher number, saved just before the run was killed.
    """
    folder, suffixes, last = work_dir, {".pth"}, None
    pointer = work_dir / "last_checkpoint"
    if pointer.is_file():
        named = Path(pointer.read_text(encoding="utf-8", errors="replace").strip())
        suffixes.add(named.suffix)
        last = work_dir / named.name
        if not last.is_file() and named.is_file():
            folder, last = named.parent, named
    found = [
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.suffix in suffixes
        and not path.name.startswith(("best_", "nonfinite_", "."))
        and path.is_file()
    ]

    def age(path: Path) -> tuple[bool, bool, int]:
        time = path.stat().st_mtime_ns
        later = last in found and time > last.stat().st_mtime_ns and _number(path) > _number(last)
        return later, path == last, time

    return sorted(found, key=age, reverse=True)


def _number(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(([-1, *re.findall(r"\d+", path.stem)])[-1])


def _take_own(runner: Any, saved: Sequence[Mapping[str, Any]]) -> None:
    """What each process has for itself: its random streams, and its share of the next log line."""
    rank, processes = world()
    if processes == len(saved):  # else some would have more to tell than others
        runner.message_hub.resume(saved[rank].get("message_hub", {}))
    if rank < len(saved):
        set_random_state(saved[rank]["random"])
    else:
        seed_generators(runner.seed + runner.iter * processes + rank)


def _is_past(record: Mapping[str, Any], loop: Any) -> bool:
    """Whether a resumed run will not write that record of the metrics again."""
    if record["mode"] == "val" and record["step"] > loop.validated:
        return False
    return record["iter"] <= loop.iter
