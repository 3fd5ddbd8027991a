"""Write the names of classes onto the regions that they cover."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_LEAST_PIXELS = 10  # height of the letters
_SHARE = 40  # letters grow with the picture: one of so many parts of its shorter side


def draw_class_names(
    picture: np.ndarray, labels: np.ndarray, classes: Sequence[str], colours: np.ndarray
) -> np.ndarray:
    """A picture with the name of every class in it, on the widest row of its region.

    Args:
        picture: (H, W, 3) uint8 RGB.
        labels: (H, W) integers.
        classes: names; labels without one are left alone.
        colours: (C, 3) RGB, one for each class: the boxes behind the names.

    Returns:
        (H, W, 3) uint8 RGB; names that do not fit into the picture are left out.
    """
    height, width = labels.shape
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    font = _font(max(_LEAST_PIXELS, min(height, width) // _SHARE))
    for label in np.unique(labels).tolist():
        if not 0 <= label < len(classes):
            continue
        name = classes[label]
        box_width, box_height = (int(end) + 3 for end in draw.textbbox((2, 2), name, font=font)[2:])
        if box_width > width or box_height > height:
            continue
        x, y = _anchor(labels == label)
        x, y = min(x, width - box_width), min(y, height - box_height)
        colour = tuple(int(part) for part in colours[label])
        draw.rectangle((x, y, x + box_width - 1, y + box_height - 1), fill=colour, outline="black")
        draw.text((x + 2, y + 2), name, font=font, fill=_readable(colour))
    return np.array(canvas)


def _font(height: int) -> Any:
    """Pillow's own font; Pillow 10.0, or one without FreeType, has it in one size only."""
    try:
        return ImageFont.load_default(height)
    except (TypeError, ImportError):
        return ImageFont.load_default()


def _anchor(region: np.ndarray) -> tuple[int, int]:
    """(x, y): the middle pixel of the row that has most of the region's pixels."""
    y = int(region.sum(axis=1).argmax())
    columns = np.flatnonzero(region[y])
    return int(columns[len(columns) // 2]), y


def _readable(colour: tuple[int, ...]) -> str:
    """Black on light colours, white on dark ones."""
    red, green, blue = colour
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else "white"
