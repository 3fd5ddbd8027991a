"""BaseSegDataset: images and masks in two folders, paired by name, run through a pipeline."""

# SPDX-License-Identifier: Apache-2.0
import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch.utils.data

from segfast.datasets.arguments import (
    checked_backend,
    checked_colors,
    checked_policy,
    join_prefixes,
    select,
)
from segfast.datasets.folder import IMAGE_SUFFIXES, Suffixes, pair_files
from segfast.datasets.labels import LabelRule
from segfast.datasets.mask_check import check_first_masks
from segfast.datasets.metainfo import choose_palette, classes_label_map, merge_metainfo
from segfast.datasets.sample_key import generator_for
from segfast.datasets.skips import note_skip
from segfast.datasets.transforms.base import Compose
from segfast.errors import ConfigError, DataError
from segfast.registry import DATASETS


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
            without masks. Further keys are folders for subclasses.
        filter_cfg: kept for subclasses, whose `filter_data` may use it.
        indices: keep the first n samples, the last n for -n, or those of a list.
        serialize_data: kept for MMEngine's configs; the list of samples stays a list.
        pipeline: transforms; None loads, annotates (where there are masks) and packs.
        test_mode: an image that the pipeline rejects is an error, not replaced by another. Needs
            classes, for the metrics.
        lazy_init: list and check the files at the first use, or in `full_init()`.
        max_refetch: how often in a row an image may be replaced.
        ignore_index: label of pixels that do not count.
        reduce_zero_label: raw label 0 is ignored and all others go down by one.
        backend_args: kept for MMEngine's configs; None or dict(backend="local").
        label_map: raw label -> label, for example {0: 0, 255: 1}; other raw labels than those and
            `ignore_index` are an error.
        mask_colors: RGB colours, where masks are colour pictures: a pixel of the k-th colour has the
            raw label k. A colour that is not listed is an error.
        on_error: "raise" where a file cannot be used; or "skip": in training, another sample takes
            its place, the same one on every run, chosen by (seed, epoch, index). What was replaced is
            counted and logged. A data set of `test_mode` cannot skip: its metrics would be wrong.

    Raises:
        AssertionError: `test_mode` without classes.
        ConfigError: an argument does not fit; the text names the key.
        DataError: the folders or a checked mask cannot be used; the text names the file.
    """

    METAINFO: ClassVar[dict] = {}
    # Images without a mask are an error, or, where this is a dict, listed in it: see `pair_files`.
    unpaired: ClassVar[dict[str, list[str]] | None] = None

    def __init__(
        self,
        ann_file: str = "",
        img_suffix: Suffixes = IMAGE_SUFFIXES,
        seg_map_suffix: Suffixes = IMAGE_SUFFIXES,
        metainfo: Mapping | None = None,
        data_root: str | os.PathLike | None = None,
        data_prefix: Mapping[str, str | os.PathLike | None] | None = None,
        filter_cfg: dict | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[dict | Callable] | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
        max_refetch: int = 1000,
        ignore_index: int = 255,
        reduce_zero_label: bool = False,
        backend_args: dict | None = None,
        label_map: Mapping[int, int] | None = None,
        mask_colors: Sequence[Sequence[int]] | None = None,
        on_error: str = "raise",
    ) -> None:
        """Check the arguments; list the files and check a few of them."""
        self.data_root = os.path.expanduser(os.fspath(data_root or ""))
        self.data_prefix = join_prefixes(self.data_root, data_prefix)
        self.ann_file = os.path.join(self.data_root, ann_file) if ann_file else ""
        self.img_suffix = img_suffix
        self.seg_map_suffix = seg_map_suffix
        self.filter_cfg = copy.deepcopy(filter_cfg)
        self.serialize_data = serialize_data
        self.backend_args = checked_backend(backend_args)
        self.test_mode = test_mode
        self.max_refetch = max_refetch
        self.ignore_index = ignore_index
        self.reduce_zero_label = reduce_zero_label
        self.mask_colors = checked_colors(mask_colors)
        self.on_error = checked_policy(on_error, test_mode)
        self._metainfo = merge_metainfo(self.METAINFO, metainfo)
        self.label_map = self._resolve_label_map(label_map)
        self._complete_metainfo()
        self.pipeline = Compose(self.default_pipeline() if pipeline is None else pipeline)
        self._indices = indices
        self._data_list: list[dict] | None = None
        if test_mode:
            named = self._metainfo.get("classes") is not None
            assert named, "dataset metainfo `classes` should be specified when testing"
        if not lazy_init:
            self.full_init()

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
            self.unpaired,
        )
        return [
            {"img_path": image} if mask is None else {"img_path": image, "seg_map_path": mask}
            for image, mask in pairs
        ]

    def check_data(self) -> None:
        """Look at a few masks, see `check_first_masks`."""
        pairs = [(info["img_path"], info.get("seg_map_path")) for info in self.data_list]
        skip = self.on_error == "skip"
        check_first_masks(pairs, self.label_rule, self.mask_colors, skip)

    def filter_data(self) -> list[dict]:
        """The samples of `data_list` to keep, before `indices` chooses among them: all."""
        return self.data_list

    # ---- the dataset ---------------------------------------------------------------------------

    def full_init(self) -> None:
        """List the files and check a few masks, unless that was done.

        Raises:
            ConfigError: `indices` does not fit.
            DataError: the folders or a checked mask cannot be used; the text names the file.
        """
        if self._data_list is not None:
            return
        self._data_list = self.load_data_list()
        try:
            self._data_list = select(self.filter_data(), self._indices)
            self.check_data()
        except BaseException:
            self._data_list = None  # the next use meets the same error, not half a list
            raise

    @property
    def data_list(self) -> list[dict]:
        """What `load_data_list` found; `full_init` runs first where `lazy_init` put it off."""
        if self._data_list is None:
            self.full_init()
        return cast("list[dict]", self._data_list)

    @data_list.setter
    def data_list(self, data_list: list[dict]) -> None:
        self._data_list = data_list

    @property
    def metainfo(self) -> dict[str, Any]:
        """A copy of the metainfo: classes, palette, label_map, reduce_zero_label, and yours."""
        return copy.deepcopy(self._metainfo)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.data_list)

    @property
    def label_rule(self) -> LabelRule:
        """How raw mask values become labels."""
        return LabelRule.from_info(self._label_info())

    def _label_info(self) -> dict:
        classes = self._metainfo.get("classes")
        return {
            "mask_colors": self.mask_colors,
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
        for attempt in range(1, self.max_refetch + 2):
            try:
                sample = self.pipeline({**self.get_data_info(place), "rng": rng})
            except DataError as error:
                if self.on_error != "skip" or attempt > self.max_refetch:
                    raise
                note_skip(error)
                rng = generator_for(idx, attempt)  # not where the failure left it
                place = int(rng.integers(len(self)))
                continue
            if sample is not None:
                return sample
            if self.test_mode:
                path = self.data_list[place].get("img_path")
                raise DataError(f"{path}: the pipeline returned nothing for this image")
            place = int(rng.integers(len(self)))
        raise DataError(f"the pipeline rejected {self.max_refetch + 1} images in a row")
