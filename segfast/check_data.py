"""check_data: scan the data sets of a config, and propose the config lines that would mend them."""

# SPDX-License-Identifier: Apache-2.0
import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from segfast.config import load_config
from segfast.data_report import DataReport
from segfast.datasets import BaseSegDataset
from segfast.datasets.labels import LabelRule
from segfast.datasets.metainfo import default_palette
from segfast.datasets.remedies import Remedy, class_weights, mend_colors, mend_values
from segfast.datasets.report import LABEL_KINDS, DatasetReport
from segfast.datasets.scan import color_type_of, reads_files, scan
from segfast.errors import UserError
from segfast.registry import DATASETS


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
    workers = min(os.cpu_count() or 1, 8) if num_workers is None else num_workers
    reports = []
    for mode in ("train", "val", "test"):
        loader = config.get(f"{mode}_dataloader")
        is_config = isinstance(loader, Mapping)
        part = loader.get("dataset") if is_config else getattr(loader, "dataset", None)  # type: ignore[union-attr]
        if part is not None:
            reports += _check_part(part, f"{mode}_dataloader.dataset", config, workers, quiet)
    if not reports:
        raise UserError("no data set to check (hint: train_dataloader=dict(dataset=...))")
    proposals, remarks = _mend(reports)
    for report in reports:
        report.note_empty_classes()
    proposals |= _deep_images(config, reports)
    return DataReport(reports, proposals, _statistics(config, reports[0]), remarks)


# ---- finding and scanning the data sets --------------------------------------------------------


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
    """The data set without its own first look at masks, images without a mask listed apart."""
    if not isinstance(cfg, Mapping):
        return cfg
    kind = cfg.get("type")
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(kind, type) and issubclass(kind, BaseSegDataset)):
        return DATASETS.build(cfg, path=key)
    lenient = {"check_data": lambda self: None, "unpaired": {}}
    return DATASETS.build({**cfg, "type": type(kind.__name__, (kind,), lenient)}, path=key)


def _scan_one(
    dataset: Any, cfg: Any, key: str, config: Mapping, workers: int, quiet: bool
) -> DatasetReport:
    classes = (getattr(dataset, "metainfo", None) or {}).get("classes")
    rule = getattr(dataset, "label_rule", LabelRule())
    if rule.num_classes is None:
        rule = dataclasses.replace(rule, num_classes=_num_classes(config))
    if not reads_files(dataset):  # its samples hold labels, not raw values
        rule = dataclasses.replace(rule, label_map=None, reduce_zero_label=False)
    report = DatasetReport(key, classes, rule, color_type_of(dataset))
    report.can_be_mended = reads_files(dataset)
    report.palette = _given_palette(dataset, cfg)
    unpaired = getattr(dataset, "unpaired", None) or {}
    for path in unpaired.get("image", []):
        report.note("missing mask", f"{path}: no mask for this image")
    for path in unpaired.get("mask", []):
        report.note("mask without image", f"{path}: no image for this mask")
    facts = scan(dataset, rule, workers if len(dataset) > 16 else 0)
    for one in tqdm(facts, desc=report.mode, total=len(dataset), disable=quiet, unit="image"):
        report.add(one)
    report.finish()
    return report


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


def _num_classes(config: Mapping) -> int | None:
    """Where the data set names no classes: what the model says."""
    model = config.get("model")
    if not isinstance(model, Mapping):
        return getattr(model, "num_classes", None)
    heads = model.get("decode_head")
    head = heads[-1] if isinstance(heads, (list, tuple)) and heads else heads
    for owner in (model, head):
        count = owner.get("num_classes") if isinstance(owner, Mapping) else None
        if isinstance(count, int) and count > 0:
            return count
    return None


# ---- what would mend them ----------------------------------------------------------------------


def _mend(reports: list[DatasetReport]) -> tuple[dict[str, Any], list[str]]:
    """Config lines that mend the labels, and remarks; the reports count classes accordingly from here on.

    Data sets with the same rule get the same lines: what one of them holds of a class, another may hold later.
    """
    lines: dict[str, Any] = {}
    remarks: list[str] = []
    mended: list[tuple[DatasetReport, dict]] = []
    for report in reports:
        if report.colors and report.values:
            _add(remarks, _few_colored(report))
        if not report.can_be_mended:
            continue
        alike = [r for r in reports if (r.rule, r.is_colored) == (report.rule, report.is_colored)]
        if report.rule.num_classes is None or not any(_mislabelled(r) for r in alike):
            continue
        remedy = _remedy(report, alike)
        for name, value in remedy.arguments.items():
            lines[f"{report.key}.{name}"] = value
        _add(remarks, remedy.remark)
        mended.append((report, remedy.arguments))
    for report, arguments in mended:
        report.apply(arguments)
    return lines, remarks


def _add(remarks: list[str], remark: str) -> None:
    if remark and remark not in remarks:
        remarks.append(remark)


def _few_colored(report: DatasetReport) -> str:
    count = len(report.problems["colour mask"])
    return f"{report.key}: {count} masks are colour pictures, the others hold indices: convert these {count} files"


def _mislabelled(report: DatasetReport) -> bool:
    kinds = [kind for kind in LABEL_KINDS if kind in report.problems]
    return bool(kinds) and (report.is_colored or kinds != ["colour mask"])


def _remedy(report: DatasetReport, alike: list[DatasetReport]) -> Remedy:
    """What fits all these data sets."""
    if report.is_colored:
        colors = sum((r.colors for r in alike), start=Counter())
        return mend_colors(colors, report.rule, report.palette)
    return mend_values({value for r in alike for value in r.values}, report.rule)


def _deep_images(config: Mapping, reports: list[DatasetReport]) -> dict[str, Any]:
    """Images of more than 8 bits are loaded as they are."""
    found: dict[str, Any] = {}
    for report in reports:
        if "deep image" not in report.problems:
            continue
        node: Any = config
        for part in report.key.split("."):
            node = node[int(part)] if part.isdigit() else node[part]
        steps = node.get("pipeline") if isinstance(node, Mapping) else None
        if steps is None:
            kinds = ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")
            plain: list[dict] = [{"type": kind} for kind in kinds]
            plain[0]["color_type"] = "unchanged"
            found[f"{report.key}.pipeline"] = plain
            continue
        for i, step in enumerate(steps):
            if isinstance(step, Mapping) and step.get("type") == "LoadImageFromFile":
                found[f"{report.key}.pipeline.{i}.color_type"] = "unchanged"
    return found


def _statistics(config: Mapping, report: DatasetReport) -> dict[str, Any]:
    """Class weights, mean and std of the training data, as config lines."""
    found: dict[str, Any] = {}
    rows = report.classes_seen()
    mended = report.mended != report.rule or not _mislabelled(report)
    if mended and any(pixels for pixels, _, _ in rows):
        weights = class_weights([row[0] for row in rows], [row[2] for row in rows])
        found |= _loss_lines(config.get("model"), weights)
    measured = report.statistics()
    if measured is not None:
        found |= _preprocessor_lines(config, *measured)
    return found


def _loss_lines(model: Any, weights: list[float]) -> dict[str, Any]:
    """Where the model's cross-entropy takes its weights."""
    if not isinstance(model, Mapping):
        return {}
    head = model.get("decode_head")
    place, owner = (
        ("model.decode_head.loss_decode", head)
        if isinstance(head, Mapping)
        else ("model.loss", model)
    )
    loss = (owner or {}).get(place.rpartition(".")[2])
    if loss is None:
        return {place: {"type": "CrossEntropyLoss", "class_weight": weights}}
    if isinstance(loss, Mapping):
        return {f"{place}.class_weight": weights}
    return {f"{place}.0.class_weight": weights} if isinstance(loss, (list, tuple)) else {}


def _preprocessor_lines(config: Mapping, mean: list[float], std: list[float]) -> dict[str, Any]:
    """Mean and std in the order in which the preprocessor sees the channels."""
    model = config.get("model")
    inner = model.get("data_preprocessor") if isinstance(model, Mapping) else None
    outer = config.get("data_preprocessor")
    place = (
        "data_preprocessor" if inner is None and outer is not None else "model.data_preprocessor"
    )
    given = inner if inner is not None else outer
    if given is None:
        rgb = {"bgr_to_rgb": True} if len(mean) == 3 else {}
        order = slice(None, None, -1) if rgb else slice(None)
        whole = {"type": "SegDataPreProcessor", "mean": mean[order], "std": std[order], **rgb}
        return {place: whole}
    if not isinstance(given, Mapping):
        return {}
    order = slice(None, None, -1) if given.get("bgr_to_rgb") and len(mean) == 3 else slice(None)
    return {f"{place}.mean": mean[order], f"{place}.std": std[order]}
