"""check_data: scan the data sets of a config, and propose the config lines that would mend them."""

# SPDX-License-Identifier: Apache-2.0
import contextlib
import copy
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from tqdm import tqdm

from segfast.config import load_config
from segfast.data_proposals import deep_images, mend, num_classes, statistics
from segfast.data_report import DataReport
from segfast.datasets import BaseSegDataset
from segfast.datasets.folder import IMAGE_SUFFIXES, listed_suffixes, pictures_left_out
from segfast.datasets.images import MAX_PIXELS_VARIABLE, max_pixels
from segfast.datasets.labels import LabelRule
from segfast.datasets.metainfo import default_palette
from segfast.datasets.report import DatasetReport, note_empty_classes
from segfast.datasets.scan import color_type_of, reads_files, scan
from segfast.errors import ConfigError, UserError
from segfast.registry import DATASETS
from segfast.runner.environment import set_up_environment


def check_data(
    cfg: Any = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    num_workers: int | None = None,
    quiet: bool = False,
) -> DataReport:
    """Scan every data set of a config, decoding every file.

    Args:
        cfg: as `segfast.train` takes it.
        overrides: dotted keys, as there.
        num_workers: processes that read; None for one a core, 8 at most.
        quiet: no progress bar.

    Raises:
        UserError: the config is wrong, or has no data set.
    """
    config = load_config(cfg, overrides)
    if num_workers is not None and num_workers < 0:
        raise UserError(f"expected num_workers >= 0, got {num_workers}")
    workers = min(os.cpu_count() or 1, 8) if num_workers is None else num_workers
    reports = []
    with _environment(config):
        for mode in ("train", "val", "test"):
            key = f"{mode}_dataloader"
            if config.get(key) is not None:
                part = _dataset_of(config[key], key)
                reports += _check_part(part, f"{key}.dataset", config, workers, quiet)
    if not reports:
        raise UserError("no data set to check (hint: train_dataloader=dict(dataset=...))")
    proposals, remarks = mend(reports)
    for mode in ("train", "val", "test"):
        parts = [report for report in reports if report.mode == mode]
        if parts:
            note_empty_classes(parts)
    proposals |= deep_images(config, reports)
    return DataReport(reports, proposals, statistics(config, reports), remarks)


@contextlib.contextmanager
def _environment(config: Mapping) -> Iterator[None]:
    """What registers types is imported, and images have the limit that training gives them."""
    before = os.environ.get(MAX_PIXELS_VARIABLE)
    env_cfg = config.get("env_cfg") or {}
    limit = {"max_pixels": env_cfg["max_pixels"]} if "max_pixels" in env_cfg else {}
    try:
        set_up_environment(limit, "none", config.get("custom_imports") or {})
        max_pixels()  # a wrong one is one error, not one for each image
        yield
    finally:
        os.environ.pop(MAX_PIXELS_VARIABLE, None)
        if before is not None:
            os.environ[MAX_PIXELS_VARIABLE] = before


# ---- finding and scanning the data sets --------------------------------------------------------


def _dataset_of(loader: Any, key: str) -> Any:
    """The data set, or its config, of a dataloader or a dataloader's config."""
    found = (
        loader.get("dataset") if isinstance(loader, Mapping) else getattr(loader, "dataset", None)
    )
    if found is None:
        raise ConfigError(key, f"expected dict(dataset=...), got {loader!r}")
    return found


def _check_part(
    cfg: Any, key: str, config: Mapping, workers: int, quiet: bool
) -> list[DatasetReport]:
    """The report of a data set, or of each that it is made of."""
    inner = cfg if isinstance(cfg, Mapping) else {}
    if isinstance(inner.get("datasets"), (list, tuple)):
        parts = enumerate(inner["datasets"])
        found = [_check_part(p, f"{key}.datasets.{i}", config, workers, quiet) for i, p in parts]
        return [report for reports in found for report in reports]
    if isinstance(inner.get("dataset"), Mapping):
        return _check_part(inner["dataset"], f"{key}.dataset", config, workers, quiet)
    try:
        dataset = _open(cfg, key)
    except UserError as error:
        report = DatasetReport(key, None, LabelRule())
        report.note("data set", str(error))
        return [report]
    return [_scan_one(dataset, cfg, key, config, workers, quiet)]


def _open(cfg: Any, key: str) -> Any:
    """The data set without its own first look at masks, images without a mask listed apart, nothing skipped."""
    if not isinstance(cfg, Mapping):
        cfg = DATASETS.build(cfg, path=key)  # refuses what is no object
        if getattr(cfg, "on_error", "raise") != "skip":
            return cfg
        strict = copy.copy(cfg)
        strict.on_error = "raise"
        return strict
    changes = {"on_error": "raise"} if "on_error" in cfg else {}
    if "lazy_init" in cfg:
        changes["lazy_init"] = False  # type: ignore[assignment]
    kind = cfg.get("type")
    if isinstance(kind, str):
        try:
            kind = DATASETS.get(kind)
        except ConfigError as error:
            raise error.under(f"{key}.type") from None
    if not (isinstance(kind, type) and issubclass(kind, BaseSegDataset)):
        return DATASETS.build({**cfg, **changes}, path=key)
    lenient = {"check_data": lambda self: None, "unpaired": {}}
    part = type(kind.__name__, (kind,), lenient)
    dataset = DATASETS.build({**cfg, **changes, "type": part}, path=key)
    unpaired, dataset.__class__ = dataset.unpaired, kind  # a class that other processes know
    dataset.unpaired = unpaired
    return dataset


def _scan_one(
    dataset: Any, cfg: Any, key: str, config: Mapping, workers: int, quiet: bool
) -> DatasetReport:
    classes = (getattr(dataset, "metainfo", None) or {}).get("classes")
    rule = getattr(dataset, "label_rule", LabelRule())
    if rule.num_classes is None:
        rule = dataclasses.replace(rule, num_classes=num_classes(config))
    if not reads_files(dataset):  # its samples hold labels, not raw values
        rule = dataclasses.replace(rule, label_map=None, reduce_zero_label=False)
    report = DatasetReport(key, classes, rule, color_type_of(dataset))
    report.can_be_mended = reads_files(dataset)
    report.palette = _given_palette(dataset, cfg)
    _note_files(report, dataset)
    _note_classes(report, config)
    if isinstance(cfg, Mapping) and cfg.get("on_error") == "skip" and report.mode != "train":
        report.note(
            "data set", f"{key}.on_error: 'skip' would falsify the metrics, only training may"
        )
    unpaired = getattr(dataset, "unpaired", None) or {}
    looked_for = (
        f"looked for {listed_suffixes(getattr(dataset, 'seg_map_suffix', ()))}: see seg_map_suffix"
    )
    for path in unpaired.get("image", []):
        report.note("missing mask", f"{path}: no mask for this image ({looked_for})")
    for path in unpaired.get("mask", []):
        report.note("mask without image", f"{path}: no image for this mask")
    facts = scan(dataset, rule, workers if len(dataset) > 16 else 0)
    for one in tqdm(facts, desc=report.mode, total=len(dataset), disable=quiet, unit="image"):
        report.add(one)
    report.finish()
    if report.num_images == 0:
        report.note("data set", f"{key}: no sample (hint: data_prefix, ann_file, indices)")
    elif report.mode != "test" and not report.values and not report.colors:
        _note_unlabelled(report, dataset)
    return report


def _note_files(report: DatasetReport, dataset: Any) -> None:
    """Pictures that nothing reads because of their ending, where a folder is read whole."""
    if not reads_files(dataset) or dataset.ann_file:
        return
    folder = dataset.data_prefix["img_path"]
    given = dataset.img_suffix
    kind = "picture left out" if given == IMAGE_SUFFIXES else "picture of another ending"
    for path in pictures_left_out(folder, given) if os.path.isdir(folder) else []:
        report.note(kind, f"{path}: not read, img_suffix is {listed_suffixes(given)}")


def _note_classes(report: DatasetReport, config: Mapping) -> None:
    """The model and the data set have to agree on how many classes there are."""
    model, own = num_classes(config), len(report.classes or ())
    if model is not None and own and model != own and not (own == 2 and model == 1):
        what = f"{own} classes in the data set's metainfo, but the model has num_classes={model}"
        report.note("number of classes", f"{report.key}: {what}")


def _note_unlabelled(report: DatasetReport, dataset: Any) -> None:
    if not reads_files(dataset):
        report.note("no labels", f"{report.key}: its samples hold no gt_sem_seg")
    elif "unreadable mask" not in report.problems and "missing mask" not in report.problems:
        what = "no masks (hint: data_prefix.seg_map_path names their folder)"
        report.note("data set", f"{report.key}: {what}")


def _given_palette(dataset: Any, cfg: Any) -> Any:
    """The colours that somebody has said, not those that fill the gap."""
    metainfo = cfg.get("metainfo") if isinstance(cfg, Mapping) else None
    declared = getattr(dataset, "METAINFO", None) or {}
    said = (metainfo.get("palette") if isinstance(metainfo, Mapping) else None) or declared.get(
        "palette"
    )
    found = (getattr(dataset, "metainfo", None) or {}).get("palette")
    if said or isinstance(cfg, Mapping):
        return found if said else None
    return None if found == default_palette(len(found or [])) else found
