"""LocalVisBackend: pictures as PNG files in a folder."""

# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import numpy as np
from PIL import Image

from segfast.registry import VISBACKENDS


@VISBACKENDS.register_module()
class LocalVisBackend:
    """Writes `<save_dir>/vis_image/<name>_<step>.png`.

    Args:
        save_dir: folder, created when the first picture is written.
    """

    def __init__(self, save_dir: str | Path) -> None:
        """Take the folder."""
        self.save_dir = Path(save_dir)

    def add_image(self, name: str, image: np.ndarray, step: int = 0) -> Path:
        """Write an (H, W, 3) uint8 RGB picture and return its path."""
        path = self.save_dir / "vis_image" / f"{name}_{step}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        return path
