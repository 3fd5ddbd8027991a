"""Look at every pair of a data set: what is wrong with it, what its mask holds, what its image measures."""

# SPDX-License-Identifier: Apache-2.0
import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from segfast.datasets.base import BaseSegDataset
from segfast.datasets.images import (
    ColorType,
    lossy_format,
    open_image,
    read_image,
    sample_bits,
)
from segfast.datasets.labels import LabelRule, packed_colors, read_mask
from segfast.datasets.mask_check import differing_sizes
from segfast.datasets.transforms import LoadImageFromFile
from segfast.errors import DataError, UserError

MAX_COLORS = 256  # a mask of more is a photograph
_INDEX_BANDS = 1
_DEEP = "has more than 8 bits"


@dataclasses.dataclass
class Facts:
    """What one pair is.

    Attributes:
        problems: (kind, one line that names the file).
        values: raw mask value -> pixels.
        colors: packed RGB colour -> pixels, of a mask that is a colour picture.
        channels: of the image's file; 0 where it cannot be read.
        sums: (3, C) float64: pixels, sum, sum of squares of each channel as it is loaded, in BGR order.
        path: the image's.
    """

    path: str
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    values: dict[int, int] = dataclasses.field(default_factory=dict)
    colors: dict[int, int] = dataclasses.field(default_factory=dict)
    channels: int = 0
    sums: np.ndarray | None = None


class _Pairs(Dataset):
    """The pairs of a data set as `Facts`."""

    def __init__(self, dataset: Any, rule: LabelRule) -> None:
        self.dataset, self.rule = dataset, rule
        self.color_type = color_type_of(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Facts:
        if not reads_files(self.dataset):
            return self._from_sample(index)
        info = self.dataset.data_list[index]
        facts = Facts(str(info["img_path"]))
        with _noting("unreadable image", facts):
            self._from_files(facts, info.get("seg_map_path"))
        return facts

    def _from_files(self, facts: Facts, mask_path: str | None) -> None:
        image = self._image(facts)
        if mask_path is None:
            return
        with _noting("unreadable mask", facts, mask_path):
            size = self._mask(facts, mask_path)
            if image is not None and tuple(size) != image.shape[:2]:
                what = differing_sizes(mask_path, size, facts.path, image.shape)
                facts.problems.append(("size differs", what))

    def _image(self, facts: Facts) -> np.ndarray | None:
        """Decode the whole image, as a truncated one shows only then, and measure it."""
        try:
            image = read_image(facts.path, self.color_type)
        except DataError as error:
            deep = _DEEP in str(error)
            facts.problems.append(("deep image" if deep else "unreadable image", str(error)))
            if not deep:
                return None
            image = read_image(facts.path, "unchanged")
        _note_file(facts)
        facts.sums = channel_sums(image)
        if not np.isfinite(facts.sums).all():
            facts.problems.append(("not finite", f"{facts.path}: holds NaN or infinite values"))
            facts.sums = None
        return image

    def _mask(self, facts: Facts, path: str) -> tuple[int, ...]:
        """Count the mask's values, or its colours; its (H, W)."""
        colors = self.dataset.mask_colors
        lossy = lossy_format(path)
        if lossy:
            what = f"{path}: {lossy} changes label values, save masks as PNG"
            facts.problems.append(("lossy mask", what))
        with open_image(path) as picture:
            is_color = len(picture.getbands()) > _INDEX_BANDS
            if is_color and colors is None:
                packed = packed_colors(picture)
                facts.colors = _counts(packed)
                facts.problems.append(("colour mask", _color_problem(path, facts.colors)))
                return packed.shape
        mask = read_mask(path, colors)
        self._values(facts, mask, path)
        return mask.shape

    def _values(self, facts: Facts, mask: np.ndarray, where: str) -> None:
        """Count them, and say which are no labels."""
        facts.values = _counts(mask)
        raw = np.array(list(facts.values), dtype=np.int64)
        _, wrong = self.rule.labels_of(raw)
        if wrong.any():
            found = ", ".join(f"{v} ({facts.values[v]} pixels)" for v in raw[wrong][:4].tolist())
            more = f" and {int(wrong.sum()) - 4} more" if wrong.sum() > 4 else ""
            what = f"{where}: holds the value {found}{more}, no class and not ignored"
            facts.problems.append(("label out of range", what))

    def _from_sample(self, index: int) -> Facts:
        """Of a data set that is no folder: what its pipeline makes."""
        facts = Facts(f"sample {index}")
        try:
            sample = self.dataset[index]
            image = np.moveaxis(np.asarray(sample["inputs"]), 0, -1)
            facts.channels, facts.sums = image.shape[-1], channel_sums(image)
            if "gt_sem_seg" in sample["data_samples"]:
                labels = np.asarray(sample["data_samples"].gt_sem_seg.data)
                self._values(facts, labels, facts.path)
        except UserError as error:
            facts.problems.append(("unreadable image", str(error)))
        except Exception as error:  # code that is not ours meets a file that it cannot use
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            what = f"sample {index}: no image and labels ({reason})"
            facts.problems.append(("not checked", what))
        return facts


@contextlib.contextmanager
def _noting(kind: str, facts: Facts, path: str | None = None) -> Iterator[None]:
    """What goes wrong with one file is a fact about it, and the end of the look at it."""
    try:
        yield
    except UserError as error:
        facts.problems.append((kind, str(error)))
    except MemoryError:
        facts.problems.append((kind, f"{path or facts.path}: does not fit into the memory"))


def scan(dataset: Any, rule: LabelRule, num_workers: int = 0) -> Iterator[Facts]:
    """`Facts` of every sample, in order, read by worker processes.

    Args:
        dataset: a `BaseSegDataset`, whose files are read; of any other data set the samples.
        rule: what is a label; more may be known than the data set knows, how many classes the model has.
        num_workers: processes; 0 reads in this one.
    """
    loader: DataLoader = DataLoader(
        _Pairs(dataset, rule), batch_size=4, num_workers=num_workers, collate_fn=list
    )
    for batch in loader:
        yield from batch


def color_type_of(dataset: Any) -> ColorType:
    """How the data set's pipeline loads images."""
    loads = _loads(dataset)
    return loads[0].color_type if loads else "color"


def reads_files(dataset: Any) -> bool:
    """Whether the samples are files that can be read here, rather than made or read by other code."""
    return isinstance(dataset, BaseSegDataset) and bool(_loads(dataset))


def _loads(dataset: Any) -> list[LoadImageFromFile]:
    steps = getattr(getattr(dataset, "pipeline", None), "transforms", [])
    return [step for step in steps if type(step) is LoadImageFromFile]


def channel_sums(image: np.ndarray) -> np.ndarray:
    """Pixels, sum and sum of squares of each channel.

    Args:
        image: (H, W) or (H, W, C).

    Returns:
        (3, C) float64, exact for uint8.
    """
    flat = image.reshape(image.shape[0] * image.shape[1], -1)
    if image.dtype == np.uint8:
        counts = [np.bincount(channel, minlength=256) for channel in flat.T]
        value = np.arange(256)
        rows = [(c.sum(), c @ value, c @ value**2) for c in counts]
        return np.array(rows, dtype=np.float64).T
    wide = flat.astype(np.float64)
    pixels = np.full(wide.shape[1], len(wide), dtype=np.float64)
    return np.stack([pixels, wide.sum(0), np.square(wide).sum(0)])


def _counts(array: np.ndarray) -> dict[int, int]:
    """Value -> how often it occurs."""
    if array.dtype == np.uint8:
        counts = np.bincount(array.ravel(), minlength=256)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(array, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _color_problem(path: str, colors: dict[int, int]) -> str:
    if len(colors) > MAX_COLORS:
        return f"{path}: {len(colors)} colours, is this a photograph instead of a mask, or a JPEG?"
    return f"{path}: a colour picture of {len(colors)} colours, where class indices are expected"


def _note_file(facts: Facts) -> None:
    """What the file holds, whatever it is converted to."""
    with open_image(facts.path) as image:
        facts.channels = 3 if image.mode == "P" else len(image.getbands())
        is_tiff, bits = image.format == "TIFF", sample_bits(image)
    if bits > 8 and facts.channels > 1:
        what = f"{facts.path}: {bits} bits in each of {facts.channels} channels, the lower {bits - 8} are cut off"
        facts.problems.append(("cut to 8 bits", what))
    if not is_tiff:
        return
    try:
        with open_image(facts.path) as image:
            pages = getattr(image, "n_frames", 1)
    except DataError:  # the first page was read
        what = f"{facts.path}: its list of pages is damaged, only the first is read"
        facts.problems.append(("pages", what))
        return
    if pages > 1:
        facts.problems.append(("pages", f"{facts.path}: {pages} pages, only the first is read"))
