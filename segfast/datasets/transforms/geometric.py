"""Crop, flip and pad images together with their label maps."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

import numpy as np
import torch

from segfast.datasets.transforms.base import (
    BaseTransform,
    as_writable,
    describe,
    generator_of,
    seg_fields,
)
from segfast.datasets.transforms.resize import pair_of_ints
from segfast.errors import ConfigError
from segfast.registry import TRANSFORMS

Box = tuple[int, int, int, int]

_CROP_ATTEMPTS = 10
_FLIP_AXES = {"horizontal": (1,), "vertical": (0,), "diagonal": (0, 1)}
_PADDING_MODES = ("constant", "edge", "reflect", "symmetric")


@TRANSFORMS.register_module()
class RandomCrop(BaseTransform):
    """Cut a random window; an image smaller than the window keeps its size on that side.

    Args:
        crop_size: (height, width), or one int for both.
        cat_max_ratio: below 1, draw the window again (ten times at most) until it shows two
            classes and no class covers this share of its counted pixels.
        ignore_index: label that does not count for `cat_max_ratio`; None takes the dataset's.
    """

    def __init__(
        self,
        crop_size: int | tuple[int, int],
        cat_max_ratio: float = 1.0,
        ignore_index: int | None = None,
    ) -> None:
        """Check the window."""
        self.crop_size = pair_of_ints("crop_size", crop_size)
        self.cat_max_ratio = cat_max_ratio
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Cut the image and every map; sets `img_shape`."""
        box = self._choose_box(results)
        for name in ("img", *seg_fields(results)):
            # Copied, so that a worker does not send the whole image behind the view.
            results[name] = np.ascontiguousarray(_crop(results[name], box))
        results["img_shape"] = results["img"].shape[:2]
        return results

    def _choose_box(self, results: dict) -> Box:
        rng = generator_of(results)
        size = results["img"].shape[:2]
        box = self._draw_box(size, rng)
        labels = results.get("gt_seg_map")
        if self.cat_max_ratio >= 1 or labels is None:
            return box
        ignore_index = self.ignore_index
        if ignore_index is None:
            ignore_index = results.get("ignore_index", 255)
        for _ in range(_CROP_ATTEMPTS):
            counts = _label_counts(_crop(labels, box), ignore_index)
            if len(counts) > 1 and counts.max() / counts.sum() < self.cat_max_ratio:
                break
            box = self._draw_box(size, rng)
        return box

    def _draw_box(self, size: tuple[int, int], rng: np.random.Generator) -> Box:
        top, left = (
            int(rng.integers(0, max(side - crop, 0) + 1))
            for side, crop in zip(size, self.crop_size, strict=True)
        )
        return top, top + self.crop_size[0], left, left + self.crop_size[1]

    def __repr__(self) -> str:
        """The arguments."""
        return describe(self, "crop_size", "cat_max_ratio", "ignore_index")


def _crop(array: np.ndarray, box: Box) -> np.ndarray:
    return array[box[0] : box[1], box[2] : box[3]]


def _label_counts(labels: np.ndarray, ignore_index: int) -> np.ndarray:
    """Pixels of each label present, without the ignored one."""
    if labels.dtype == np.uint8:
        counts = np.bincount(labels.ravel(), minlength=256)
        if 0 <= ignore_index < 256:
            counts[ignore_index] = 0
        return counts[counts > 0]
    values, counts = np.unique(labels, return_counts=True)
    return counts[values != ignore_index]


@TRANSFORMS.register_module()
class RandomFlip(BaseTransform):
    """Flip the image and every map; sets `flip`, `flip_direction` and, for maps, `swap_seg_labels`.

    Args:
        prob: probability; one for all directions together, or one for each.
        direction: `horizontal`, `vertical` or `diagonal`, or several of them.
        swap_seg_labels: pairs of labels that change places in a flip, such as left and right hand.
    """

    def __init__(
        self,
        prob: float | Sequence[float] = 0.5,
        direction: str | Sequence[str] = "horizontal",
        swap_seg_labels: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Spread the probability over the directions."""
        self.prob = prob
        self.direction = direction
        self.swap_seg_labels = swap_seg_labels
        self._directions = [direction] if isinstance(direction, str) else list(direction)
        for name in self._directions:
            if name not in _FLIP_AXES:
                known = ", ".join(_FLIP_AXES)
                raise ConfigError("direction", f"expected one of {known}, got {name!r}")
        count = len(self._directions)
        shares = [prob / count] * count if isinstance(prob, int | float) else list(prob)
        if len(shares) != count or min(shares) < 0 or sum(shares) > 1 + 1e-9:
            problem = f"expected one number in [0, 1], or one for each direction, got {prob!r}"
            raise ConfigError("prob", problem)
        self._bounds = np.cumsum(shares)

    def transform(self, results: dict) -> dict:
        """Draw whether and how, and flip."""
        drawn = generator_of(results).random()
        place = int(np.searchsorted(self._bounds, drawn, side="right"))
        direction = self._directions[place] if place < len(self._directions) else None
        results["flip"] = direction is not None
        results["flip_direction"] = direction
        if direction is None:
            return results
        results["img"] = _flip(results["img"], direction)
        for name in seg_fields(results):
            results[name] = self._swap(_flip(results[name], direction))
            results["swap_seg_labels"] = self.swap_seg_labels
        return results

    def _swap(self, labels: np.ndarray) -> np.ndarray:
        swapped = labels.copy() if self.swap_seg_labels else labels
        for first, second in self.swap_seg_labels or ():
            swapped[labels == first] = second
            swapped[labels == second] = first
        return swapped

    def __repr__(self) -> str:
        """The arguments."""
        return describe(self, "prob", "direction", "swap_seg_labels")


def _flip(array: np.ndarray, direction: str) -> np.ndarray:
    # torch reverses interleaved pixels some twenty times faster than a NumPy copy of a[:, ::-1].
    return torch.from_numpy(as_writable(array)).flip(_FLIP_AXES[direction]).numpy()


@TRANSFORMS.register_module()
class Pad(BaseTransform):
    """Pad right and bottom; sets `pad_shape` and `img_shape`.

    Args:
        size: (width, height) to pad up to.
        size_divisor: pad both sides up to a multiple of this.
        pad_to_square: pad the shorter side up to the longer one.
        pad_val: fill value of the image, or dict(img=..., seg=...).
        padding_mode: `constant`, `edge`, `reflect` or `symmetric`.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        size_divisor: int | None = None,
        pad_to_square: bool = False,
        pad_val: float | dict | None = None,
        padding_mode: str = "constant",
    ) -> None:
        """Check that a target is given."""
        if size is None and size_divisor is None and not pad_to_square:
            raise ConfigError("size", "give size=(width, height), size_divisor or pad_to_square")
        if size is not None and (size_divisor is not None or pad_to_square):
            raise ConfigError("size", "give either size, or size_divisor and pad_to_square")
        if padding_mode not in _PADDING_MODES:
            known = ", ".join(_PADDING_MODES)
            raise ConfigError("padding_mode", f"expected one of {known}, got {padding_mode!r}")
        self.size = None if size is None else pair_of_ints("size", size)
        self.size_divisor = size_divisor
        self.pad_to_square = pad_to_square
        given = pad_val if isinstance(pad_val, dict) else {"img": pad_val or 0}
        self.pad_val = {"img": 0, "seg": 255, **given}
        self.padding_mode = padding_mode

    def transform(self, results: dict) -> dict:
        """Pad the image and every map."""
        target = self._target(*results["img"].shape[:2])
        results["img"] = self._pad(results["img"], target, self.pad_val["img"])
        for name in seg_fields(results):
            results[name] = self._pad(results[name], target, self.pad_val["seg"])
        results["pad_shape"] = results["img_shape"] = results["img"].shape[:2]
        results["pad_fixed_size"] = self.size
        results["pad_size_divisor"] = self.size_divisor
        return results

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if self.size is not None:
            return max(height, self.size[1]), max(width, self.size[0])
        if self.pad_to_square:
            height = width = max(height, width)
        divisor = self.size_divisor or 1
        return -(-height // divisor) * divisor, -(-width // divisor) * divisor

    def _pad(self, array: np.ndarray, target: tuple[int, int], value: float) -> np.ndarray:
        height, width = array.shape[:2]
        if (height, width) == target:
            return array
        if self.padding_mode == "constant":
            padded = np.full((*target, *array.shape[2:]), value, dtype=array.dtype)
            padded[:height, :width] = array
            return padded
        widths = [(0, target[0] - height), (0, target[1] - width)] + [(0, 0)] * (array.ndim - 2)
        return np.pad(array, widths, mode=self.padding_mode)  # type: ignore[call-overload]

    def __repr__(self) -> str:
        """The arguments."""
        return describe(self, "size", "size_divisor", "pad_to_square", "pad_val", "padding_mode")
