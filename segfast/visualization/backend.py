"""LocalVisBackend: pictures as PNG files and numbers as JSON lines, in a folder."""

# SPDX-License-Identifier: Apache-2.0

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segfast.paths import being_written, inside
from segfast.registry import VISBACKENDS


@VISBACKENDS.register_module()
class LocalVisBackend:
    """Writes `<save_dir>/vis_image/<name>_<step>.png` and `<save_dir>/scalars.json`.

    Args:
        save_dir: folder, created when something is written.
    """

    def __init__(self, save_dir: str | Path) -> None:
        """Take the folder."""
        self.save_dir = Path(save_dir)

    def add_image(self, name: str, image: np.ndarray, step: int = 0) -> Path:
        """Write an (H, W, 3) uint8 RGB picture and return its path."""
        path = inside(self.save_dir / "vis_image", f"{name}_{step}.png")
        with being_written(path):
            Image.fromarray(image).save(path)
        return path

    def add_scalars(self, scalars: Mapping[str, Any], step: int = 0) -> None:
        """Append one line of numbers; 0-d tensors and arrays are read."""
        text = json.dumps({**plain_numbers(scalars), "step": step}) + "\n"
        with being_written(self.save_dir / "scalars.json") as path, path.open("a") as file:
            file.write(text)

    def close(self) -> None:
        """Nothing is open."""


def build_backends(configs: Sequence | None, save_dir: str | Path | None) -> list:
    """The backends of a visualizer; they write into `vis_data` under its `save_dir`, or into it if that is its name.

    Raises:
        ConfigError: a backend cannot be built, for example without any `save_dir`.
    """
    default = {}
    if save_dir is not None:
        folder = Path(save_dir)
        default = {"save_dir": str(folder if folder.name == "vis_data" else folder / "vis_data")}
    return [
        VISBACKENDS.build(backend, path=f"vis_backends.{i}", **default)
        for i, backend in enumerate(configs or [])
    ]


def plain_numbers(scalars: Mapping[str, Any]) -> dict[str, Any]:
    """0-d tensors and arrays as Python numbers."""
    return {k: v.item() if hasattr(v, "item") else v for k, v in scalars.items()}
