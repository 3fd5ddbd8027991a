"""Read label masks and turn their raw values into training labels, checking every one."""

# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from segfast.datasets.images import open_image
from segfast.errors import DataError

_INDEX_MODES = ("P", "L", "I", "I;16", "I;16B", "I;16L", "I;16N")
_UNLISTED = np.iinfo(np.int64).min  # marks a raw value that label_map does not list


def read_mask(path: str, colors: Sequence[Sequence[int]] | None = None) -> np.ndarray:
    """Decode a mask that holds one class index per pixel, or one colour that stands for it.

    Args:
        path: a palette image (read as indices), 1-bit, 8-bit or 16-bit grey.
        colors: RGB colours, if masks are colour pictures: a pixel of the k-th one has the value k.

    Returns:
        (H, W) uint8, or uint16 / int32 where the file is deeper than 8 bits or there are more
        colours than fit.

    Raises:
        DataError: the file cannot be decoded, its pixels are colours and `colors` is None, or it has
            a colour that is not listed.
    """
    with open_image(path) as image:
        if colors is not None:
            return _indices_of(image, tuple(pack_color(color) for color in colors), path)
        if image.mode == "1":
            return np.array(image, dtype=np.uint8)
        if image.mode in _INDEX_MODES:
            mask = np.array(image)
            return mask.astype(mask.dtype.newbyteorder("="), copy=False)
        raise DataError(f"{path}: {_describe_colors(image)}")


def pack_color(color: Sequence[int]) -> int:
    """An RGB colour as one number."""
    red, green, blue = color
    return int(red) << 16 | int(green) << 8 | int(blue)


def packed_colors(image: Image.Image) -> np.ndarray:
    """(H, W) int32: each pixel's colour as one number."""
    pixels = np.asarray(image.convert("RGB")).astype(np.int32)
    return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]


def _indices_of(image: Image.Image, colors: tuple[int, ...], path: str) -> np.ndarray:
    """Each pixel's place in the list of colours."""
    pixels = packed_colors(image)
    order = np.argsort(colors)
    ranked = np.asarray(colors)[order]
    place = np.minimum(np.searchsorted(ranked, pixels), len(colors) - 1)
    wrong = ranked[place] != pixels
    if wrong.any():
        found = int(pixels[wrong][0])
        color = (found >> 16, found >> 8 & 255, found & 255)
        raise DataError(
            f"{path}: mask has {int(wrong.sum())} pixels of colours that mask_colors does not list, the "
            f"first is {color}; add it, and send it to a class or the ignored label with label_map"
        )
    return order.astype(np.uint8 if len(colors) <= 256 else np.int32)[place]


def _describe_colors(image: Image.Image) -> str:
    kind = f"mask has {len(image.getbands())} channels (mode {image.mode})"
    if image.mode in ("RGB", "RGBA"):
        red, green, blue = image.split()[:3]
        if red.tobytes() == green.tobytes() == blue.tobytes():
            return (
                f"{kind}, all alike; masks must hold one class index per pixel: keep one channel, "
                "for example with Pillow: mask.getchannel(0).save(path), or set mask_colors"
            )
    return f"{kind}; masks must hold one class index per pixel: set mask_colors to the classes' colours"


@dataclasses.dataclass(frozen=True)
class LabelRule:
    """From the values in mask files to training labels: reduce, then map, then check.

    Args:
        num_classes: labels have to lie in [0, num_classes); None leaves them unchecked.
        ignore_index: the label of pixels that do not count.
        reduce_zero_label: raw 0 becomes `ignore_index`, other labels go down by one.
        label_map: pairs (raw, label); raw values that are not listed are an error, except
            `ignore_index`. None maps nothing.
    """

    num_classes: int | None = None
    ignore_index: int = 255
    reduce_zero_label: bool = False
    label_map: tuple[tuple[int, int], ...] | None = None

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def _cached(*fields: object) -> "LabelRule":
        return LabelRule(*fields)  # type: ignore[arg-type]

    @classmethod
    def from_info(cls, info: Mapping) -> "LabelRule":
        """The rule that a dataset's data info describes."""
        label_map = info.get("label_map")
        return cls._cached(
            info.get("num_classes"),
            info.get("ignore_index", 255),
            bool(info.get("reduce_zero_label", False)),
            None if label_map is None else tuple(label_map.items()),
        )

    def dtype(self, raw: np.dtype) -> np.dtype:
        """The smallest of uint8, int16, int32 for every label this rule may give."""
        mapped = [label for _, label in self.label_map or ()]
        if self.num_classes is not None:
            highest = self.num_classes - 1
        else:
            highest = 255 if raw == np.uint8 else np.iinfo(np.int32).max
        low, high = min([0, self.ignore_index, *mapped]), max([highest, self.ignore_index, *mapped])
        for kind in (np.uint8, np.int16):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return np.dtype(kind)
        return np.dtype(np.int32)

    def apply(self, mask: np.ndarray, path: str) -> np.ndarray:
        """Training labels of a mask.

        Args:
            mask: (H, W) raw values, any integer dtype.
            path: the mask's file, for messages.

        Returns:
            (H, W) labels, uint8 whenever all possible labels fit; the mask itself if nothing
            changes.

        Raises:
            DataError: a raw value is not listed in `label_map`, or a label is no class.
        """
        dtype = self.dtype(mask.dtype)
        unchanged = not self.reduce_zero_label and self.label_map is None and mask.dtype == dtype
        if unchanged and self._surely_right(mask):
            return mask
        if mask.dtype == np.uint8:
            raw, index = np.arange(256), mask
            present = np.bincount(mask.ravel(), minlength=256) > 0
        else:
            raw = np.unique(mask).astype(np.int64)
            index = np.searchsorted(raw, mask)
            present = np.ones(len(raw), dtype=bool)
        labels = self._map(raw)
        self._check(raw[present], labels[present], path)
        return mask if unchanged else labels.astype(dtype)[index]

    def labels_of(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The labels of raw values, and which of them are wrong: neither a class nor ignored.

        Args:
            raw: (n,) integers.

        Returns:
            (n,) int64 and (n,) bool.
        """
        labels = self._map(np.asarray(raw))
        wrong = labels == _UNLISTED
        if self.num_classes is not None:
            wrong |= (labels != self.ignore_index) & ((labels < 0) | (labels >= self.num_classes))
        return labels, wrong

    def _surely_right(self, mask: np.ndarray) -> bool:
        """Whether one look at the maximum shows that unmapped labels are classes."""
        if self.num_classes is None or mask.size == 0:
            return True
        return mask.dtype == np.uint8 and int(mask.max()) < self.num_classes

    def _map(self, raw: np.ndarray) -> np.ndarray:
        labels = raw.astype(np.int64)
        ignored = labels == self.ignore_index
        if self.reduce_zero_label:
            ignored |= labels == 0
            labels = labels - 1
        labels[ignored] = self.ignore_index
        if self.label_map is None:
            return labels
        mapped = np.where(ignored, self.ignore_index, _UNLISTED)
        for old, new in self.label_map:
            mapped[labels == old] = new
        return mapped

    def _check(self, raw: np.ndarray, labels: np.ndarray, path: str) -> None:
        unlisted = raw[labels == _UNLISTED]
        if unlisted.size:
            known = ", ".join(str(old) for old, _ in self.label_map or ())
            reduced = (
                f" ({unlisted[0] - 1} after reduce_zero_label)" if self.reduce_zero_label else ""
            )
            raise DataError(
                f"{path}: mask holds the value {unlisted[0]}{reduced}, which label_map does not list "
                f"(it lists {known}); add it, mapped to {self.ignore_index} if it does not count"
            )
        if self.num_classes is None:
            return
        wrong = (labels != self.ignore_index) & ((labels < 0) | (labels >= self.num_classes))
        if not wrong.any():
            return
        allowed = f"0..{self.num_classes - 1}, and {self.ignore_index} to ignore"
        raise DataError(
            f"{path}: mask holds the label {labels[wrong][0]}, but there are {self.num_classes} "
            f"classes ({allowed}); {self._remedy(raw, int(wrong.sum()), path)}"
        )

    def _remedy(self, raw: np.ndarray, num_wrong: int, path: str) -> str:
        if path.lower().endswith((".jpg", ".jpeg")):
            return "JPEG changes label values: save masks as PNG"
        plain = self.label_map is None and not self.reduce_zero_label
        if plain and not 0 <= self.ignore_index < (self.num_classes or 0):
            counted = raw[raw != self.ignore_index]
            if len(raw) == len(counted) == self.num_classes == 2:
                return f"set label_map={{{raw[0]}: 0, {raw[1]}: 1}}"
            if counted.size and counted.min() == 1 and counted.max() == self.num_classes:
                return "labels seem to start at 1: set reduce_zero_label=True"
        if num_wrong > 32:
            return "is this an image instead of a mask?"
        return f"add the class, or give a label_map that sends it to a class or {self.ignore_index}"
