"""What `check_data` proposes: config lines that mend the labels, and numbers that may be of use."""

# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from collections.abc import Mapping
from typing import Any

from segfast.datasets.remedies import Remedy, class_weights, mend_colors, mend_values
from segfast.datasets.report import LABEL_KINDS, DatasetReport, channel_statistics, classes_of


def num_classes(config: Mapping) -> int | None:
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


def mend(reports: list[DatasetReport]) -> tuple[dict[str, Any], list[str]]:
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


def deep_images(config: Mapping, reports: list[DatasetReport]) -> dict[str, Any]:
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


def statistics(config: Mapping, reports: list[DatasetReport]) -> dict[str, Any]:
    """Class weights, mean and std of the training data, all its parts, as config lines."""
    found: dict[str, Any] = {}
    parts = [r for r in reports if r.mode == reports[0].mode]
    rows = classes_of(parts)
    mended = not any(part.mended == part.rule and _mislabelled(part) for part in parts)
    if mended and any(pixels for pixels, _, _ in rows):
        weights = class_weights([row[0] for row in rows], [row[2] for row in rows])
        found |= _loss_lines(config.get("model"), weights)
    measured = channel_statistics(parts)
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
