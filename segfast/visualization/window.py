"""Show a picture in a window, where there is a screen."""

# SPDX-License-Identifier: Apache-2.0

import os
import sys
import time
import warnings

import numpy as np
from PIL import Image


def has_display() -> bool:
    """Whether a window could be opened: always on macOS and Windows, with an X or Wayland server elsewhere."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def show_picture(picture: np.ndarray, title: str, wait_time: float = 0) -> bool:
    """Open the system's viewer, which stays open, and go on after `wait_time` seconds.

    Args:
        picture: (H, W, 3) uint8 RGB.
        title: of the window, where the viewer takes one.
        wait_time: seconds until this returns.

    Returns:
        Whether there was a display; without one there is a warning and nothing opens.
    """
    if not has_display():
        warnings.warn(
            "show=True, but there is no display (hint: out_file, save_dir or vis_backends)",
            stacklevel=3,
        )
        return False
    Image.fromarray(picture).show(title=title)
    time.sleep(wait_time)
    return True
