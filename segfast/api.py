"""The three calls: train, test, predict."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from segfast.config import load_config
from segfast.datasets import Compose, pseudo_collate
from segfast.datasets.folder import IMAGE_SUFFIXES
from segfast.errors import CheckpointError, DataError
from segfast.registry import MODELS
from segfast.runner import Runner
from segfast.runner.checkpoint import load_checkpoint, load_weights
from segfast.structures import SegDataSample


class TrainResult(NamedTuple):
    """What a training leaves: the model, the last validation's metrics, and where its files are."""

    model: nn.Module
    metrics: dict
    checkpoint: str | None
    best_checkpoint: str | None
    work_dir: str


def train(
    cfg: Any = None,
    *,
    work_dir: str | Path | None = None,
    resume: bool = False,
    load_from: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train a model.

    Args:
        cfg: a dict (an mmengine Config is one), a path to .py, .yaml, .toml or .json, or None for the built-in demo.
        work_dir: where to leave checkpoints, metrics and pictures; default: the config's, else work_dirs/<its name>.
        resume: continue the run in work_dir exactly where it stopped.
        load_from: checkpoint whose weights to start from.
        overrides: dotted keys, `{"train_cfg.max_iters": 400}`.

    Returns:
        TrainResult: `metrics["mIoU"]` is the last validation's, in percent.

    Raises:
        UserError: the config or the data is wrong; one line that names the key or the file and the remedy.
    """
    config = load_config(cfg, overrides)
    config["work_dir"] = str(work_dir or config.get("work_dir") or _default_work_dir(cfg))
    # The command line and the call win over the file's own resume and load_from.
    runner = Runner.from_cfg(
        config,
        resume=resume or bool(config.get("resume")),
        load_from=load_from or config.get("load_from"),
    )
    model = runner.train()
    hook = runner.checkpoint_hook
    return TrainResult(
        model,
        dict(runner.metrics),
        hook.last_checkpoint if hook else None,
        hook.best_checkpoint if hook else None,
        str(runner.work_dir),
    )


def test(
    cfg: Any,
    checkpoint: str | Path,
    *,
    work_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict:
    """Evaluate a checkpoint on the config's test data, or its validation data where it has none.

    Returns:
        The metrics, in percent.

    Raises:
        UserError: the config, the data or the checkpoint is wrong.
    """
    config = load_config(cfg, overrides)
    if config.get("test_dataloader") is None:
        config["test_dataloader"] = config.get("val_dataloader")
        config["test_evaluator"] = config.get("val_evaluator")
    for mode in ("train", "val"):
        for part in ("dataloader", "cfg", "evaluator"):
            config.pop(f"{mode}_{part}", None)
    config.pop("optim_wrapper", None)
    config.pop("param_scheduler", None)
    _forget_pretrained(config)
    config["work_dir"] = str(work_dir or config.get("work_dir") or _default_work_dir(cfg))
    return Runner.from_cfg(config, load_from=checkpoint).test()


test.__test__ = False  # type: ignore[attr-defined]  # not a test function, whatever pytest thinks of its name


def predict(
    model_or_checkpoint: nn.Module | str | Path,
    images: Any,
    *,
    batch_size: int = 1,
    device: str | None = None,
) -> list[SegDataSample]:
    """Segment images.

    Args:
        model_or_checkpoint: a model as `train` returns it, or a checkpoint file, which carries its own config.
        images: one or a list of: paths, folders, PIL images, (H, W, 3) uint8 RGB arrays, (3, H, W) uint8
            RGB tensors.
        batch_size: images per forward pass.
        device: "cpu", "cuda", ...; None takes the GPU if there is one (for a checkpoint) or the model's own.

    Returns:
        One sample per image: `pred_sem_seg.data` (1, H, W) int64 at the image's own size; metainfo `img_path` and
        `classes` where known.

    Raises:
        CheckpointError: the file cannot be used.
        DataError: an image cannot be read.
    """
    if isinstance(model_or_checkpoint, nn.Module):
        model, pipeline, meta = model_or_checkpoint, None, {}
        if device is not None:
            model.to(device)
    else:
        model, pipeline, meta = load_model(model_or_checkpoint, device)
    steps = Compose(_prediction_pipeline(pipeline))
    sources = _expand(images)
    model.eval()
    results: list[SegDataSample] = []
    with torch.no_grad():
        for start in range(0, len(sources), batch_size):
            batch = [steps(_results_of(source)) for source in sources[start : start + batch_size]]
            results += model.test_step(pseudo_collate(batch))
    for sample in results:
        if meta.get("classes"):
            sample.set_metainfo({"classes": meta["classes"], "palette": meta.get("palette")})
    return results


def load_model(
    checkpoint: str | Path, device: str | None = None
) -> tuple[nn.Module, list | None, dict]:
    """Rebuild a checkpoint's model: (model, its evaluation pipeline or None, dict(classes, palette))."""
    state = load_checkpoint(checkpoint)
    text = state.get("meta", {}).get("cfg")
    config = yaml.safe_load(text) if text else None
    if not config or "model" not in config:
        raise CheckpointError(
            f"{checkpoint} carries no config to rebuild its model from (hint: was it written by segfast?)"
        )
    _forget_pretrained(config)
    model = MODELS.build(config["model"], path="model")
    load_weights(model, state, checkpoint)
    model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dataset = (config.get("test_dataloader") or config.get("val_dataloader") or {}).get(
        "dataset", {}
    )
    return model, dataset.get("pipeline"), state["meta"].get("dataset_meta", {})


def _forget_pretrained(config: dict) -> None:
    """A checkpoint holds all weights: files of pretrained ones need not be there any more."""
    if isinstance(config.get("model"), dict):
        config["model"] = {
            key: value for key, value in config["model"].items() if key != "encoder_weights"
        }


def _default_work_dir(cfg: Any) -> str:
    return f"work_dirs/{Path(cfg).stem}" if isinstance(cfg, (str, Path)) else "work_dirs/run"


def _prediction_pipeline(pipeline: Sequence | None) -> list:
    """The evaluation pipeline without annotations."""
    steps = pipeline or [{"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}]
    return [
        step
        for step in steps
        if not (isinstance(step, Mapping) and step.get("type") == "LoadAnnotations")
    ]


def _expand(images: Any) -> list:
    """One or many images, folders opened, as a list."""
    items = images if isinstance(images, (list, tuple)) else [images]
    expanded: list = []
    for item in items:
        if isinstance(item, (str, Path)) and Path(item).is_dir():
            found = sorted(p for p in Path(item).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise DataError(
                    f"{item}: no images in this folder (looked for {', '.join(IMAGE_SUFFIXES)})"
                )
            expanded += found
        else:
            expanded.append(item)
    return expanded


def _results_of(source: Any) -> dict:
    """What a pipeline starts from: a path, or pixels already there (as BGR, like a decoded file)."""
    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            raise DataError(f"{source}: no such image")
        return {"img_path": str(source), "seg_fields": []}
    if isinstance(source, Image.Image):
        source = np.asarray(source.convert("RGB"))
    if isinstance(source, Tensor):
        source = source.permute(1, 2, 0).cpu().numpy()
    if not isinstance(source, np.ndarray) or source.ndim != 3:
        raise DataError(
            f"expected a path, a PIL image, an (H, W, 3) array or a (3, H, W) tensor, got {type(source).__name__}"
        )
    return {"img_path": None, "img": np.ascontiguousarray(source[..., ::-1]), "seg_fields": []}
