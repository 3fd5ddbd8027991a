"""ShapesDataset: generated images of shapes on textured ground, to train on without any download."""

# SPDX-License-Identifier: Apache-2.0
import math
import os
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw

from segfast.datasets.base import BaseSegDataset
from segfast.errors import ConfigError
from segfast.registry import DATASETS

CLASSES = ("background", "circle", "square", "triangle", "ring")
_PALETTE = [[40, 40, 48], [228, 87, 86], [76, 147, 212], [238, 186, 62], [104, 190, 120]]
_MIN_SIZE = 32
_MIN_CONTRAST = 60  # largest channel difference between a shape and the ground's mean colour
_MIN_DISTANCE = 0.85  # of two shapes' centres, in sums of their radii
_OVERSAMPLING = 2  # shapes are drawn at twice the size for soft edges


@DATASETS.register_module()
class ShapesDataset(BaseSegDataset):
    """Circles, squares, triangles and rings in random colours; shape, not colour, tells the class.

    Image `index` depends on (seed, index) only and is made when it is asked for. The pipeline
    starts from `img` (size, size, 3) uint8 BGR and `gt_seg_map` (size, size) uint8: it needs no
    loading steps.

    Args:
        num_images: number of samples.
        size: height and width.
        seed: chooses the images; take different seeds for training and validation.
        pipeline: transforms; None packs only.
        test_mode: as in BaseSegDataset.
    """

    METAINFO: ClassVar[dict] = {"classes": CLASSES, "palette": _PALETTE}

    def __init__(
        self,
        num_images: int = 1024,
        size: int = 96,
        seed: int = 0,
        pipeline: Sequence[dict | Callable] | None = None,
        test_mode: bool = False,
    ) -> None:
        """Check the sizes; nothing is drawn yet."""
        for name, value, least in (("num_images", num_images, 1), ("size", size, _MIN_SIZE)):
            if not isinstance(value, int) or value < least:
                problem = f"expected a whole number of at least {least}, got {value!r}"
                raise ConfigError(name, problem)
        self.num_images = num_images
        self.size = size
        self.seed = seed
        super().__init__(pipeline=pipeline, test_mode=test_mode)

    def default_pipeline(self) -> list[dict]:
        """Pack only."""
        return [{"type": "PackSegInputs"}]

    def load_data_list(self) -> list[dict]:
        """Names for the images, which are no files."""
        return [{"img_path": f"shapes/{self.seed}/{k:05d}.png"} for k in range(self.num_images)]

    def check_data(self) -> None:
        """Nothing to check: labels are drawn, not read."""

    def get_data_info(self, idx: int) -> dict:
        """The drawn image, its labels, and what BaseSegDataset says about them."""
        info = super().get_data_info(idx)
        image, labels = draw_shapes(self.seed, info["sample_idx"], self.size)
        info.update(img=image, gt_seg_map=labels, seg_fields=["gt_seg_map"])
        info["img_shape"] = info["ori_shape"] = labels.shape
        return info


def draw_shapes(seed: int, index: int, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image and its labels.

    Args:
        seed: seed of the data set.
        index: number of the image.
        size: height and width.

    Returns:
        The image (size, size, 3) uint8 BGR, and the labels (size, size) uint8 in [0, 5).
    """
    rng = np.random.default_rng([seed % 2**64, index])
    mean_color = rng.integers(30, 226, 3)
    large = size * _OVERSAMPLING
    canvas = Image.fromarray(_ground(rng, mean_color, size)).resize(
        (large, large), Image.Resampling.BILINEAR
    )
    labels = Image.new("L", (large, large), 0)
    for center, radius in _places(rng, int(rng.integers(3, 7))):
        _draw_one(rng, canvas, labels, mean_color, center * large, radius * large)
    pixels = np.asarray(canvas.resize((size, size), Image.Resampling.BOX))
    noisy = pixels + rng.normal(0, rng.uniform(3, 12), pixels.shape)
    image = np.clip(noisy, 0, 255).astype(np.uint8)
    return image, np.array(labels.resize((size, size), Image.Resampling.NEAREST))


def _ground(rng: np.random.Generator, mean_color: np.ndarray, size: int) -> np.ndarray:
    """A texture around one colour: stripes of a random direction and soft blotches."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle, wavelength = rng.uniform(0, math.pi), rng.uniform(5, 20)
    phase = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / wavelength)
    stripes = np.sin(phase + rng.uniform(0, 2 * math.pi)) * rng.uniform(0, 18)
    coarse = rng.normal(0, 24, (6, 6)).astype(np.float32)
    blotches = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    ground = mean_color + (stripes + blotches)[..., None]
    return np.clip(ground, 0, 255).astype(np.uint8)


def _places(rng: np.random.Generator, count: int) -> list[tuple[np.ndarray, float]]:
    """Centres and radii, in parts of the image's side, of shapes that overlap a little at most."""
    places: list[tuple[np.ndarray, float]] = []
    for _ in range(10 * count):
        center, radius = rng.uniform(0.08, 0.92, 2), rng.uniform(0.10, 0.22)
        if all(np.hypot(*(center - c)) > _MIN_DISTANCE * (radius + r) for c, r in places):
            places.append((center, radius))
        if len(places) == count:
            break
    return places


def _draw_one(
    rng: np.random.Generator,
    canvas: Image.Image,
    labels: Image.Image,
    mean_color: np.ndarray,
    center: np.ndarray,
    radius: float,
) -> None:
    """One shape of random class, direction and colour, on image and labels alike."""
    label = int(rng.integers(1, len(CLASSES)))
    color = rng.integers(0, 256, 3)
    while np.abs(color - mean_color).max() < _MIN_CONTRAST:
        color = rng.integers(0, 256, 3)
    stencil = Image.new("1", canvas.size, 0)
    draw = ImageDraw.Draw(stencil)
    if label in (1, 4):
        draw.ellipse(_box(center, radius), fill=1)
        if label == 4:
            draw.ellipse(_box(center, radius * rng.uniform(0.45, 0.6)), fill=0)
    else:
        corners = 4 if label == 2 else 3
        turns = rng.uniform(0, 2 * math.pi) + np.arange(corners) * (2 * math.pi / corners)
        points = center + 1.15 * radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        draw.polygon([tuple(point) for point in points], fill=1)
    canvas.paste(tuple(int(level) for level in color), mask=stencil)
    labels.paste(label, mask=stencil)


def _box(center: np.ndarray, radius: float) -> tuple[float, float, float, float]:
    return (*(center - radius), *(center + radius))


def write_shapes(folder: str | os.PathLike, num_images: int, size: int = 96, seed: int = 0) -> None:
    """Write `num_images` samples as PNG files below `folder`/images and `folder`/masks.

    The files read back with BaseSegDataset hold exactly what ShapesDataset(seed=seed) yields.
    """
    paths = {kind: os.path.join(os.fspath(folder), kind) for kind in ("images", "masks")}
    for path in paths.values():
        os.makedirs(path, exist_ok=True)
    for index in range(num_images):
        image, labels = draw_shapes(seed, index, size)
        name = f"{index:05d}.png"
        Image.fromarray(np.ascontiguousarray(image[..., ::-1])).save(
            os.path.join(paths["images"], name)
        )
        Image.fromarray(labels).save(os.path.join(paths["masks"], name))
