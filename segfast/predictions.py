"""`segfast predict`: index masks and coloured pictures of images and folders, in an output folder and nowhere else."""

# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segfast.datasets.images import read_picture
from segfast.errors import UserError
from segfast.inference import expand, load_model, segment
from segfast.paths import being_written, inside
from segfast.visualization import SegLocalVisualizer

_MARK = ("Software", "segfast predict")  # in the files written here: those may be written again


def write_predictions(
    checkpoint: str | Path, images: Sequence[str], out: str | Path, **loading: Any
) -> int:
    """Segment images; write `out/masks/<name>.png` (class indices) and `out/pictures/<name>.png` (coloured).

    What an earlier call wrote is written again; any other file of such a name is left alone, and nothing is predicted.

    Args:
        checkpoint: as `segfast.predict` takes it.
        images: files and folders. A name is a file's, without its ending; below a folder, with its sub-folders.
        out: the output folder.
        loading: `device`, `config`, `trust_checkpoint` of `load_model`.

    Returns:
        How many images.

    Raises:
        UserError: an image or the checkpoint cannot be used, two images would have one name, or a file that is no
            prediction would be replaced.
    """
    if not str(out):
        raise UserError("--out: expected a folder, got an empty name")
    names = output_names(images)
    refuse_to_replace(names, out)
    model, pipeline, meta = load_model(checkpoint, **loading)
    load = pipeline[0] if pipeline else None
    as_stored = getattr(load, "color_type", "color") == "unchanged"  # a camera's turn is not undone
    visualizer = SegLocalVisualizer(dataset_meta=meta, alpha=0.6)
    sources = list(names.values())
    for name, sample in zip(names, segment(model, sources, pipeline, meta), strict=True):
        labels = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()
        small = labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.int32)
        _save(small, Path(out) / "masks", f"{name}.png")
        picture = visualizer.overlay(read_picture(names[name], upright=not as_stored), labels)
        _save(picture, Path(out) / "pictures", f"{name}.png")
    return len(sources)


def output_names(items: Sequence[str | Path]) -> dict[str, Path]:
    """Name -> image. Where two images have the same name, both keep their ending in it.

    Raises:
        UserError: they still have the same name.
    """
    found: dict[Path, str] = {}  # image -> its name with the ending
    if "" in items:
        raise UserError("expected an image or a folder, got an empty name")
    for item in map(Path, items):
        for image in map(Path, expand(str(item))):
            below = image.relative_to(item) if item.is_dir() else Path(image.name)
            found.setdefault(image, below.as_posix())
    stems = [str(Path(name).with_suffix("")) for name in found.values()]
    wearers = Counter(stems)
    names: dict[str, Path] = {}
    for (image, name), stem in zip(found.items(), stems, strict=True):
        chosen = stem if wearers[stem] == 1 else name
        if chosen in names:
            raise UserError(
                f"{image} and {names[chosen]} would both be written as {chosen}.png (hint: name the folder that holds "
                "both, which keeps its sub-folders, or use two calls with two --out)"
            )
        names[chosen] = image
    return names


def refuse_to_replace(names: Mapping[str, Path], out: str | Path) -> None:
    """Look at every file that would be written.

    Args:
        names: as `output_names` returns them.
        out: the output folder.

    Raises:
        UserError: one is an input image, or is there and no prediction: somebody's masks, for example.
    """
    inputs = {image.resolve() for image in names.values()}
    for name in names:
        for kind in ("masks", "pictures"):
            path = inside(Path(out) / kind, f"{name}.png")
            if not path.exists():
                continue
            hint = "(hint: give an --out of its own)"
            if path.resolve() in inputs:
                raise UserError(
                    f"{path} is one of the images to segment, and would be replaced {hint}"
                )
            if not _is_prediction(path):
                raise UserError(
                    f"{path} is there, was not written by segfast predict, and would be replaced {hint}"
                )


def _is_prediction(path: Path) -> bool:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get(_MARK[0]) == _MARK[1]
    except (OSError, SyntaxError, ValueError):
        return False


def _save(pixels: np.ndarray, folder: Path, name: str) -> None:
    mark = PngInfo()
    mark.add_text(*_MARK)
    with being_written(inside(folder, name)) as path:
        Image.fromarray(pixels).save(path, pnginfo=mark)
