"""Tiny image and mask folders, written per test."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def make_folder(tmp_path):
    """Write pairs below tmp_path: {stem: mask array}; images are random and of the mask's size."""

    def make(masks, image_suffix=".jpg", mask_suffix=".png", images="images", folder=tmp_path):
        rng = np.random.default_rng(0)
        for stem, mask in masks.items():
            image_path = folder / images / f"{stem}{image_suffix}"
            mask_path = folder / "masks" / f"{stem}{mask_suffix}"
            for path in (image_path, mask_path):
                path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (*np.shape(mask)[:2], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(image_path)
            Image.fromarray(np.asarray(mask)).save(mask_path)
        return folder

    return make


@pytest.fixture
def mask():
    """A mask (6, 8) uint8 with the labels 0, 1 and 2."""
    labels = np.zeros((6, 8), dtype=np.uint8)
    labels[2:, :3] = 1
    labels[:, 6:] = 2
    return labels
