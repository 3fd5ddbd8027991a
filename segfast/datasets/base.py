"""BaseSegDataset: images and masks in two folders, paired by name, run through a pipeline."""

# SPDX-License-Identifier: Apache-2.0
import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch.utils.data

from segfast.datasets.folder import IMAGE_SUFFIXES, Suffixes, pair_files
from segfast.datasets.labels import LabelRule
from segfast.datasets.mask_check import check_first_masks
from segfast.datasets.metainfo import choose_palette, classes_label_map, merge_metainfo
from segfast.datasets.sample_key import generator_for
from segfast.datasets.transforms.base import Compose
from segfast.errors import ConfigError, DataError
from segfast.registry import DATASETS, did_you_mean

_PREFIXES = ("img_path", "seg_map_path")
_DEFAULT_PREFIX = {"img_path": "images", "seg_map_path": "masks"}


@DATASETS.register_module()
class BaseSegDataset(torch.utils.data.Dataset):
    """A folder of images and a folder of masks that hold one class index per pixel.

    `<data_root>/<img_path>/a/b.jpg` belongs to `<data_root>/<seg_map_path>/a/b.png`. Raw mask
    values become labels in three steps: `reduce_zero_label`, then `label_map`, then a check that
    every label is a class or `ignore_index`. A few masks are checked at once, each one again
    when it is loaded.

    `dataset[index]` takes a `SampleKey` (what our samplers yield), whose random stream belongs to
    (seed, epoch, index), or a plain int.

    Args:
        ann_file: text file, one image stem per line, whose order is kept; empty takes every image,
            sorted by name. Relative to `data_root`.
        img_suffix: ending(s) of image files.
        seg_map_suffix: ending(s) of mask files.
        metainfo: dict(classes=[names], palette=[RGB colours]); overrides the class's `METAINFO`.
            Classes that are a part of METAINFO's, or reorder them, map the others to ignored.
        data_root: folder that all other paths are relative to.
        data_prefix: dict(img_path=..., seg_map_path=...); leave seg_map_path out for images
            without masks.
        indices: keep the first n samples, or those of a list.
        pipeline: transforms; None loads, annotates (where there are masks) and packs.
        test_mode: an image that the pipeline rejects is an error, not replaced by another.
        max_refetch: how often in a row an image may be replaced.
        ignore_index: label of pixels that do not count.
        reduce_zero_label: raw label 0 is ignored and all others go down by one.
        label_map: raw label -> label, for example {0: 0, 255: 1}; other raw labels than those and
            `ignore_index` are an error.

    Raises:
        ConfigError: an argument does not fit; the text names the key.
        DataError: the folders or a checked mask cannot be used; the text names the file.
    """

    METAINFO: ClassVar[dict] = {}

    def __init__(
        self,
        ann_file: str = "",
        img_suffix: Suffixes = IMAGE_SUFFIXES,
        seg_map_suffix: Suffixes = IMAGE_SUFFIXES,
        metainfo: Mapping | None = None,
        data_root: str | os.PathLike | None = None,
        data_prefix: Mapping[str, str | None] | None = None,
        indices: int | Sequence[int] | None = None,
        pipeline: Sequence[dict | Callable] | None = None,
        test_mode: bool = False,
        max_refetch: int = 1000,
        ignore_index: int = 255,
        reduce_zero_label: bool = False,
        label_map: Mapping[int, int] | None = None,
    ) -> None:
        """List the files and check a few of them."""
        self.data_root = os.path.expanduser(os.fspath(data_root or ""))
        self.data_prefix = _join_prefixes(self.data_root, data_prefix)
        self.ann_file = os.path.join(self.data_root, ann_file) if ann_file else ""
        self.img_suffix = img_suffix
        self.seg_map_suffix = seg_map_suffix
        self.test_mode = test_mode
        self.max_refetch = max_refetch
        self.ignore_index = ignore_index
        self.reduce_zero_label = reduce_zero_label
        self._metainfo = merge_metainfo(self.METAINFO, metainfo)
        self.label_map = self._resolve_label_map(label_map)
        self._complete_metainfo()
        self.pipeline = Compose(self.default_pipeline() if pipeline is None else pipeline)
        self.data_list = _select(self.load_data_list(), indices)
        self.check_data()

    def _resolve_label_map(self, label_map: Mapping[int, int] | None) -> dict[int, int] | None:
        classes = self._metainfo.get("classes")
        if label_map is None:
            return classes_label_map(self.METAINFO.get("classes"), classes, self.ignore_index)
        if not isinstance(label_map, Mapping):
            raise ConfigError("label_map", f"expected {{raw: label}}, got {label_map!r}")
        resolved: dict[int, int] = {}
        for raw, label in label_map.items():
            try:
                resolved[int(raw)] = int(label)
            except (TypeError, ValueError):
                problem = f"expected integers, got {raw!r}: {label!r}"
                raise ConfigError("label_map", problem) from None
        for raw, label in resolved.items():
            if classes and label != self.ignore_index and not 0 <= label < len(classes):
                problem = f"{raw} is mapped to {label}, but there are {len(classes)} classes"
                raise ConfigError("label_map", problem)
        return resolved

    def _complete_metainfo(self) -> None:
        meta = self._metainfo
        if "classes" in meta:
            count = len(meta["classes"])
            meta["palette"] = choose_palette(meta.get("palette"), count, self.label_map)
        meta["label_map"] = self.label_map
        meta["reduce_zero_label"] = self.reduce_zero_label

    # ---- what subclasses may replace -----------------------------------------------------------

    def default_pipeline(self) -> list[dict]:
        """The transforms that run when none are given."""
        annotate = [{"type": "LoadAnnotations"}] if self.data_prefix["seg_map_path"] else []
        return [{"type": "LoadImageFromFile"}, *annotate, {"type": "PackSegInputs"}]

    def load_data_list(self) -> list[dict]:
        """One dict per sample, with `img_path` and, where there are masks, `seg_map_path`."""
        pairs = pair_files(
            self.data_prefix["img_path"] or "",
            self.data_prefix["seg_map_path"],
            self.img_suffix,
            self.seg_map_suffix,
            self.ann_file or None,
        )
        return [
            {"img_path": image} if mask is None else {"img_path": image, "seg_map_path": mask}
            for image, mask in pairs
        ]

    def check_data(self) -> None:
        """Look at a few masks, see `check_first_masks`."""
        pairs = [(info["img_path"], info.get("seg_map_path")) for info in self.data_list]
        check_first_masks(pairs, LabelRule.from_info(self._label_info()))

    # ---- the dataset ---------------------------------------------------------------------------

    @property
    def metainfo(self) -> dict[str, Any]:
        """A copy of the metainfo: classes, palette, label_map, reduce_zero_label, and yours."""
        return copy.deepcopy(self._metainfo)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.data_list)

    def _label_info(self) -> dict:
        classes = self._metainfo.get("classes")
        return {
            "label_map": self.label_map,
            "reduce_zero_label": self.reduce_zero_label,
            "ignore_index": self.ignore_index,
            "num_classes": None if classes is None else len(classes),
        }

    def get_data_info(self, idx: int) -> dict:
        """What the pipeline starts from: paths, what labels mean, and `sample_idx`."""
        place = int(idx)
        info = {**self.data_list[place], **self._label_info(), "seg_fields": []}
        info["sample_idx"] = place if place >= 0 else place + len(self)
        return info

    def __getitem__(self, idx: int) -> Any:
        """The sample of that index after the pipeline.

        Raises:
            DataError: a file cannot be used, or the pipeline rejects every image.
        """
        rng = generator_for(idx)
        place = int(idx)
        for _ in range(self.max_refetch + 1):
            sample = self.pipeline({**self.get_data_info(place), "rng": rng})
            if sample is not None:
                return sample
            if self.test_mode:
                path = self.data_list[place].get("img_path")
                raise DataError(f"{path}: the pipeline returned nothing for this image")
            place = int(rng.integers(len(self)))
        raise DataError(f"the pipeline rejected {self.max_refetch + 1} images in a row")


def _join_prefixes(
    data_root: str, data_prefix: Mapping[str, str | None] | None
) -> dict[str, str | None]:
    """Both prefixes as paths; None where there is no such folder."""
    given = _DEFAULT_PREFIX if data_prefix is None else data_prefix
    for key in given:
        if key not in _PREFIXES:
            hint = did_you_mean(key, _PREFIXES)
            problem = f"expected {' and '.join(_PREFIXES)} only{hint}"
            raise ConfigError(f"data_prefix.{key}", problem)
    folders: dict[str, str | None] = {key: None for key in _PREFIXES}
    for key, value in given.items():
        folders[key] = None if value is None else os.path.join(data_root, os.path.expanduser(value))
    if folders["img_path"] is None:
        raise ConfigError("data_prefix.img_path", "missing, it names the folder of the images")
    return folders


def _select(data_list: list[dict], indices: int | Sequence[int] | None) -> list[dict]:
    if indices is None:
        return data_list
    chosen = range(min(indices, len(data_list))) if isinstance(indices, int) else indices
    for place in chosen:
        if not -len(data_list) <= place < len(data_list):
            problem = f"{place} is out of range, there are {len(data_list)} samples"
            raise ConfigError("indices", problem)
    return [data_list[place] for place in chosen]
