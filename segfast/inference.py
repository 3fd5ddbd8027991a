"""Inference on single images: rebuild a model from its checkpoint, read what the caller gives, predict."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from segfast.config import load_config
from segfast.config.parse import parse
from segfast.datasets import Compose, pseudo_collate
from segfast.datasets.folder import IMAGE_SUFFIXES
from segfast.errors import CheckpointError, ConfigError, DataError, UserError
from segfast.registry import MODELS
from segfast.runner.checkpoint import load_checkpoint, load_weights
from segfast.runner.defaults import with_defaults
from segfast.runner.environment import choose_device
from segfast.structures import SegDataSample
from segfast.trusted_types import checked, only_networks


def segment(
    model: nn.Module,
    sources: Sequence,
    pipeline: Sequence | None,
    meta: Mapping,
    batch_size: int = 1,
) -> Iterator[SegDataSample]:
    """One predicted sample after the other, so that a large folder never lies in memory; see `predict`."""
    if batch_size < 1:
        raise UserError(f"expected batch_size >= 1, got {batch_size}")
    load, steps = _split_pipeline(pipeline)
    model.eval()
    step: Any = model.test_step
    for start in range(0, len(sources), batch_size):
        batch = [steps(_read(source, load)) for source in sources[start : start + batch_size]]
        with torch.no_grad():
            samples = step(pseudo_collate(batch))
        for sample in samples:
            if meta.get("classes"):
                sample.set_metainfo({"classes": meta["classes"], "palette": meta.get("palette")})
            yield sample


def load_model(
    checkpoint: str | Path,
    device: str | None = None,
    config: Any = None,
    trust_checkpoint: bool = False,
) -> tuple[nn.Module, list | None, dict]:
    """Rebuild a checkpoint's model: (model, its evaluation pipeline or None, dict(classes, palette)).

    Args:
        checkpoint: the file.
        device: where the model goes.
        config: what `load_config` reads; None takes the config inside the checkpoint.
        trust_checkpoint: read and build whatever the checkpoint says.

    Raises:
        CheckpointError: the file cannot be used, or would run code.
    """
    state = load_checkpoint(checkpoint, trust=trust_checkpoint)
    try:
        if config is None:
            built_from = _config_inside(state, checkpoint, trust_checkpoint)
        else:
            built_from = with_defaults(load_config(config))
        forget_pretrained(built_from)
        dataset = _evaluation_dataset(built_from)
        with only_networks(checkpoint, trusted=trust_checkpoint or config is not None):
            model = MODELS.build(built_from.get("model"), path="model")
            pipeline = _built_pipeline(dataset.get("pipeline"))
    except ConfigError as error:
        if config is not None:
            raise
        raise CheckpointError(
            f"{checkpoint}: its model cannot be rebuilt from the config inside: {error} (hint: a model or net that was "
            "given as an object has to be built by hand; load the weights with segfast.runner.load_checkpoint)"
        ) from error
    load_weights(model, state, checkpoint)
    model.to(choose_device(device))
    meta = state.get("meta", {}).get("dataset_meta") or dataset.get("metainfo") or {}
    return model, pipeline, _checked_meta(meta, checkpoint)


def _checked_meta(meta: Any, source: Any) -> dict:
    """Names and colours of the classes, as drawing needs them."""
    found = dict(meta) if isinstance(meta, Mapping) else {}
    classes, palette = found.get("classes"), found.get("palette")
    are_names = classes is None or _is_list_of(classes, str)
    are_colors = palette is None or (
        _is_list_of(palette, list, tuple) and all(map(_is_rgb, palette))
    )
    fits = not classes or not palette or (are_names and are_colors and len(classes) == len(palette))
    if not (isinstance(meta, Mapping) and are_names and are_colors and fits):
        raise CheckpointError(
            f"{source}: what it says about its classes is wrong, expected names and one RGB colour for each, got "
            f"{str(meta)[:200]} (hint: segfast.runner.load_checkpoint reads the weights for a model built by hand)"
        )
    return found


def _is_list_of(value: Any, *kinds: type) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(entry, kinds) for entry in value)


def _is_rgb(color: Sequence) -> bool:
    return len(color) == 3 and all(isinstance(part, int) and 0 <= part <= 255 for part in color)


def _evaluation_dataset(config: Mapping) -> Mapping:
    """The config of the data set on which a model is tested, or validated; empty where there is none."""
    loader = config.get("test_dataloader") or config.get("val_dataloader") or {}
    dataset = loader.get("dataset") if isinstance(loader, Mapping) else None
    if not isinstance(loader, Mapping) or not isinstance(dataset or {}, Mapping):
        key = "test_dataloader" if config.get("test_dataloader") else "val_dataloader"
        raise ConfigError(key, f"expected dict(dataset=dict(...)), got {str(loader)[:200]}")
    return dataset or {}


def _built_pipeline(pipeline: Any) -> list | None:
    """The steps of an evaluation pipeline as objects: whatever they are, they are made here and not later."""
    if pipeline is None:
        return None
    if not isinstance(pipeline, (list, tuple)):
        raise ConfigError("pipeline", f"expected a list of transforms, got {pipeline!r}")
    load, rest = _split_pipeline(pipeline)
    return [*load.transforms, *rest.transforms]


def _config_inside(state: Mapping, checkpoint: str | Path, trusted: bool) -> dict:
    """The config that a checkpoint carries, as far as it may be built."""
    meta = state.get("meta")
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    hint = "(hint: was it written by segfast? --config CONFIG, or config=..., builds the model)"
    if not isinstance(text, str) or not text:
        raise CheckpointError(f"{checkpoint} carries no config to rebuild its model from {hint}")
    try:
        config = parse(Path("config.yaml"), text)
    except ConfigError as error:
        problem = f"the config inside is none that segfast reads ({error})"
        raise CheckpointError(f"{checkpoint}: {problem} {hint}") from None
    if not isinstance(config.get("model"), Mapping):
        raise CheckpointError(f"{checkpoint} carries no model to rebuild {hint}")
    return config if trusted else checked(_what_is_built(config), checkpoint)


def _what_is_built(config: Mapping) -> dict:
    """The parts of a checkpoint's config that prediction needs; what the others name is never called."""
    built: dict[str, Any] = {"model": config["model"]}
    dataset = _evaluation_dataset(config)
    parts = {key: dataset[key] for key in ("pipeline", "metainfo") if key in dataset}
    return {**built, "test_dataloader": {"dataset": parts}}


def forget_pretrained(config: dict) -> None:
    """A checkpoint holds all weights: files of pretrained ones need not be there any more."""
    if isinstance(config.get("model"), dict):
        config["model"] = _without_pretrained(config["model"])


def _without_pretrained(part: Any) -> Any:
    """A copy of a model's config, and of all parts in it, that names no file of weights."""
    if isinstance(part, (list, tuple)) and type(part) in (list, tuple):
        return type(part)(_without_pretrained(entry) for entry in part)
    if not isinstance(part, Mapping):
        return part
    kept = {k: _without_pretrained(v) for k, v in part.items()}
    for key in ("encoder_weights", "pretrained"):
        if not isinstance(part.get(key), (str, Path)) and part.get(key) is not True:
            continue
        if "." in str(part.get("type")):  # the default, too, may be to fetch: "imagenet"
            kept[key] = False if part[key] is True else None
        else:
            del kept[key]
    start = part.get("init_cfg")
    if isinstance(start, Mapping) and start.get("type") == "Pretrained":
        del kept["init_cfg"]
    return kept


def _split_pipeline(pipeline: Sequence | None) -> tuple[Compose, Compose]:
    """An evaluation pipeline as its image loading and the rest; annotations are left out."""
    load: Any = {"type": "LoadImageFromFile"}
    rest: list = []
    for step in [{"type": "PackSegInputs"}] if pipeline is None else pipeline:
        kind = step.get("type") if isinstance(step, Mapping) else type(step).__name__
        name = str(kind).rpartition(".")[2]
        if name == "LoadImageFromFile":
            load = step
        elif name != "LoadAnnotations":
            rest.append(step)
    return Compose([load]), Compose(rest)


def expand(images: Any) -> list:
    """One or many images, folders opened, as a list."""
    items = images if isinstance(images, (list, tuple)) else [images]
    expanded: list = []
    for item in items:
        if isinstance(item, str) and not item:
            raise DataError("expected an image or a folder, got an empty name")
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


def _read(source: Any, load: Compose) -> Any:
    """What the rest of a pipeline starts from: a file's pixels, or those given (as BGR, like a file's)."""
    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            raise DataError(f"{source}: no such image")
        return load({"img_path": str(source), "seg_fields": []})
    kind = type(source).__name__
    if isinstance(source, Image.Image):
        try:
            source = np.asarray(source.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:  # a file that was opened, not decoded
            raise DataError(f"the PIL image cannot be decoded ({error})") from None
    if isinstance(source, Tensor):
        source = source.permute(1, 2, 0).cpu().numpy() if source.ndim == 3 else source.cpu().numpy()
    if not isinstance(source, np.ndarray) or source.ndim != 3:
        shape = f" of shape {source.shape}" if isinstance(source, np.ndarray) else ""
        raise DataError(
            f"expected a path, a PIL image, an (H, W, 3) array or a (3, H, W) tensor, got {kind}{shape}"
        )
    size = source.shape[:2]
    image = np.ascontiguousarray(source[..., ::-1])
    return {"img_path": None, "img": image, "img_shape": size, "ori_shape": size, "seg_fields": []}
