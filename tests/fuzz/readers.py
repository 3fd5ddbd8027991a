"""What the reader fuzzers share: files to damage, and what may become of one. A value or a `UserError` in one line, in seconds
and without gigabytes; anything else is a bug. CI: test_readers.py; guided by coverage, for hours: under_atheris.py."""

# SPDX-License-Identifier: Apache-2.0

import io
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from segfast.config import load_config
from segfast.datasets.images import image_size, read_image
from segfast.datasets.labels import LabelRule, read_mask
from segfast.errors import UserError
from segfast.runner.checkpoint import load_checkpoint

SECONDS = 20.0  # of one file; a loaded machine is slow, an endless loop slower


def _image(mode: str, suffix: str, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (11, 13, 4), dtype=np.uint8)
    image = Image.fromarray(pixels[..., :3]).convert("RGB").convert(mode)
    file = io.BytesIO()
    image.save(
        file, {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(suffix, suffix), **options
    )
    return file.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    return exif


def image_files() -> list[tuple[str, bytes]]:
    """Valid images of every format that is decoded."""
    modes = [("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("L", "png"), ("1", "png"), ("I;16", "png"), ("LA", "png"),
             ("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("RGB", "tif"), ("L", "tif"), ("P", "tif"), ("I;16", "tif"),
             ("F", "tif"), ("1", "tif"), ("RGB", "bmp"), ("P", "gif"), ("RGB", "webp"), ("RGB", "ppm"), ("RGB", "jp2")]  # fmt: skip
    files = []
    for mode, suffix in modes:
        via = "I" if mode == "I;16" else mode
        files.append((suffix, _image(via if suffix == "tif" else mode, suffix)))
    files.append(("jpg", _image("RGB", "jpg", exif=_exif())))
    for kind in ("tiff_lzw", "tiff_deflate", "packbits", "tiff_adobe_deflate"):
        files.append(("tif", _image("RGB", "tif", compression=kind)))
    return files


def config_files() -> list[tuple[str, bytes]]:
    """A config as yaml, toml and json; the yaml one with anchors, variables and every kind of scalar."""
    cfg = {
        "model": {"type": "EncoderDecoder", "num_classes": 3},
        "train_cfg": {"max_iters": 9},
        "default_hooks": {},
    }
    toml = '[model]\ntype = "EncoderDecoder"\nsizes = [1, 2.5, true]\n[train_cfg]\nmax_iters = 9\nat = 2024-01-01\n'
    yaml = (
        "model: &m {type: A, k: [1, 2.0, null, true, 0x1f, 1e3, .nan, 2024-01-01], s: 'q', t: \"\\u00e9\"}\n"
        "train_cfg:\n  <<: *m\n  max_iters: 10\n  root: '{{ fileDirname }}/x'\n  home: '{{ $HOME:/tmp }}'\n"
        "custom_hooks:\n- *m\n- !!str 5\n- |\n  text\n"
    )
    texts = [("json", json.dumps(cfg)), ("toml", toml), ("yaml", yaml)]
    return [(suffix, text.encode()) for suffix, text in texts]


def checkpoint_files() -> list[tuple[str, bytes]]:
    """Checkpoints: torch's zip, torch's old pickles, safetensors."""
    state = {
        "state_dict": {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(2)},
        "meta": {"iter": 7, "name": "x"},
    }
    files = []
    for old in (False, True):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=not old)
        files.append(("pth", file.getvalue()))
    return [*files, ("safetensors", save(state["state_dict"]))]


def read_images(path: str) -> None:
    """Everything that a data set does with an image."""
    for read in (
        image_size,
        read_image,
        lambda p: read_image(p, "grayscale"),
        lambda p: read_image(p, "unchanged"),
    ):
        attempt(read, path)


def read_masks(path: str) -> None:
    """A mask's values, and labels of them."""
    mask = attempt(read_mask, path)
    if mask is not None:
        attempt(LabelRule(num_classes=3, reduce_zero_label=True).apply, mask, path)
    attempt(lambda p: read_mask(p, [(0, 0, 0), (255, 0, 0)]), path)


def attempt(read, *args):
    """What was read, or None where it was refused in one line."""
    try:
        return read(*args)
    except UserError as error:
        if len(str(error).splitlines()) == 1:
            return None
        raise AssertionError(f"expected one line, got {error}") from error


READERS = {
    "image": (image_files, read_images),
    "mask": (image_files, read_masks),
    "config": (config_files, lambda path: attempt(load_config, path)),
    "checkpoint": (checkpoint_files, lambda path: attempt(load_checkpoint, path)),
}


def feed(kind: str, suffix: str, data: bytes, folder: str) -> None:
    """Read these bytes as a file of that suffix, in time."""
    path = str(Path(folder, f"file.{suffix}"))
    Path(path).write_bytes(data)
    start = time.perf_counter()
    READERS[kind][1](path)
    seconds = time.perf_counter() - start
    assert seconds < SECONDS, f"{kind} {suffix} of {len(data)} bytes took {seconds:.1f} s"
