"""The three calls: train, test, predict."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from segfast.config import load_config
from segfast.distributed.launch import all_fail_with_one, join
from segfast.inference import expand, forget_pretrained, load_model, segment
from segfast.models.distributed import unwrapped
from segfast.runner import Runner
from segfast.runner.environment import choose_device
from segfast.runner.resume import saved_in
from segfast.structures import SegDataSample


class TrainResult(NamedTuple):
    """What a training leaves: the model, the last validation's metrics, and where its files are."""

    model: nn.Module
    metrics: dict
    checkpoint: str | None
    best_checkpoint: str | None
    work_dir: str


@all_fail_with_one
def train(
    cfg: Any = None,
    *,
    work_dir: str | Path | None = None,
    resume: bool = False,
    load_from: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    trust_checkpoint: bool = False,
) -> TrainResult:
    """Train a model.

    Args:
        cfg: a dict (an mmengine Config is one), a path to .py, .yaml, .toml or .json, or None for the built-in demo.
        work_dir: where to leave checkpoints, metrics and pictures; default: the config's, else work_dirs/<its name>.
        resume: continue the run in work_dir exactly where it stopped; with nothing to continue, begin it.
        load_from: checkpoint whose weights to start from. The config's own counts where a run begins, not where
            `resume=True` continues one; together with this `resume`, the run of that checkpoint is continued here.
        overrides: dotted keys, `{"train_cfg.max_iters": 400}`.
        trust_checkpoint: unpickle `load_from` whatever it holds. Danger: such a file can run any program as you.

    Returns:
        TrainResult: `metrics["mIoU"]` is the last validation's, in percent.

    Raises:
        UserError: the config or the data is wrong; one line that names the key or the file and the remedy.
    """
    join()
    config = load_config(cfg, overrides)
    config["work_dir"] = str(work_dir or config.get("work_dir") or _default_work_dir(cfg))
    # The command line and the call win over the file's own resume and load_from.
    if resume and load_from is None and config.get("load_from"):
        resume = bool(saved_in(Path(config["work_dir"])))
        load_from = None if resume else config["load_from"]
        start = {"resume": resume, "load_from": load_from}
    else:
        start = {
            "resume": resume or bool(config.get("resume")),
            "load_from": load_from or config.get("load_from"),
        }
    runner = Runner.from_cfg(config, **start, trust_checkpoint=trust_checkpoint)
    model = unwrapped(runner.train())
    hook = runner.checkpoint_hook
    return TrainResult(
        model,
        dict(runner.metrics),
        hook.last_checkpoint if hook else None,
        hook.best_checkpoint if hook else None,
        str(runner.work_dir),
    )


@all_fail_with_one
def test(
    cfg: Any,
    checkpoint: str | Path,
    *,
    work_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    trust_checkpoint: bool = False,
) -> dict:
    """Evaluate a checkpoint on the config's test data, or its validation data where it has none.

    `trust_checkpoint` unpickles whatever the file holds: such a file can run any program as you.

    Returns:
        The metrics, in percent.

    Raises:
        UserError: the config, the data or the checkpoint is wrong.
    """
    join()
    config = load_config(cfg, overrides)
    if config.get("test_dataloader") is None:
        config["test_dataloader"] = config.get("val_dataloader")
        config["test_evaluator"] = config.get("val_evaluator")
    for mode in ("train", "val"):
        for part in ("dataloader", "cfg", "evaluator"):
            config.pop(f"{mode}_{part}", None)
    config.pop("optim_wrapper", None)
    config.pop("param_scheduler", None)
    forget_pretrained(config)
    config["work_dir"] = str(work_dir or config.get("work_dir") or _default_work_dir(cfg))
    return Runner.from_cfg(config, load_from=checkpoint, trust_checkpoint=trust_checkpoint).test()


test.__test__ = False  # type: ignore[attr-defined]  # not a test function, whatever pytest thinks of its name


def predict(
    model_or_checkpoint: nn.Module | str | Path,
    images: Any,
    *,
    batch_size: int = 1,
    device: str | None = None,
    config: Any = None,
    trust_checkpoint: bool = False,
) -> list[SegDataSample]:
    """Segment images.

    Args:
        model_or_checkpoint: a model as `train` returns it, or a checkpoint file, which carries its own config.
        images: one or a list of: paths, folders, PIL images, (H, W, 3) uint8 RGB arrays, (3, H, W) uint8
            RGB tensors.
        batch_size: images per forward pass.
        device: "cpu", "cuda", ...; None takes the GPU if there is one (for a checkpoint) or the model's own.
        config: builds the checkpoint's model, as `train` takes it; None for the config inside the checkpoint, which
            may name networks only (see `segfast.trusted_types`). Weights without a config (safetensors) need one.
        trust_checkpoint: unpickle and build whatever the checkpoint says. Danger: such a file can run any program
            as you.

    Returns:
        One sample per image: `pred_sem_seg.data` (1, H, W) int64 at the image's own size; metainfo `img_path` and
        `classes` where known.

    Raises:
        CheckpointError: the file cannot be used.
        DataError: an image cannot be read.
    """
    if isinstance(model_or_checkpoint, nn.Module):
        model, pipeline = model_or_checkpoint, None
        meta: dict = {}
        if device is not None:
            model.to(choose_device(device))
    else:
        model, pipeline, meta = load_model(model_or_checkpoint, device, config, trust_checkpoint)
    return list(segment(model, expand(images), pipeline, meta, batch_size))


def _default_work_dir(cfg: Any) -> str:
    return f"work_dirs/{Path(cfg).stem}" if isinstance(cfg, (str, Path)) else "work_dirs/run"
