"""What a data set's arguments would have to be for the values or colours that its masks hold."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from segfast.datasets.labels import LabelRule
from segfast.datasets.scan import MAX_COLORS

_MAX_EXTRA = 32  # more values than that beyond the classes are no classes


class Remedy(NamedTuple):
    """Arguments that mend a data set, and what to know about them."""

    arguments: dict[str, Any]
    remark: str


def mend_values(values: set[int], rule: LabelRule) -> Remedy:
    """Arguments for masks of indices; where several are as likely, none.

    Args:
        values: every raw value that occurs.
        rule: how the data set makes labels of them, its `num_classes` known.

    Returns:
        No arguments where nothing is sure; the remark says what the values look like.
    """
    count, ignore_index = rule.num_classes or 0, rule.ignore_index
    if 0 <= ignore_index < count:
        remark = (
            f"ignore_index {ignore_index} is one of the {count} classes, so nothing is proposed"
        )
        return Remedy({}, f"{remark}: set one that is none, such as 255, and check again")
    if rule.label_map is not None or rule.reduce_zero_label:
        return _extended(values, rule)
    classes = set(range(count))
    counted = values - {ignore_index}
    extra = sorted(counted - classes)
    if counted and min(counted) == 1 and max(counted) == count:
        remark = "labels start at 1, reduce_zero_label makes them start at 0"
        return Remedy({"reduce_zero_label": True}, remark)
    if count == 2 and values == {0, 255} and (extra or ignore_index == 255):
        return _ranked(values)  # were 255 ignored, there would be one class
    if not extra:
        return Remedy({}, "the values are the classes")
    if len(extra) > _MAX_EXTRA:
        what = f"{len(values)} different values for {count} classes"
        return Remedy({}, f"{what}: instance numbers, a photograph, or JPEG instead of PNG?")
    if len(values) == count:
        return _ranked(values) if ignore_index not in values else _ambiguous(values, rule)
    if len(counted) == count or len(extra) >= len(counted & classes):
        return _ambiguous(values, rule)
    label_map = {k: k for k in range(count)} | dict.fromkeys(extra, ignore_index)
    remark = f"{_listed(extra)} beyond the {count} classes: ignored by this map; "
    remark += "if they are classes, name them in metainfo.classes and count them in num_classes"
    if counted == set(range(count + 1)):
        remark += f"; if 0 is the void label and not {count}, set reduce_zero_label=True instead"
    return Remedy({"label_map": label_map}, remark)


def mend_colors(colors: Mapping[int, int], rule: LabelRule, palette: Sequence | None) -> Remedy:
    """Arguments for masks that are colour pictures.

    Args:
        colors: packed RGB colour -> pixels, of all masks.
        rule: the data set's, its `num_classes` known.
        palette: the classes' RGB colours, if somebody has said them.
    """
    count = rule.num_classes or 0
    if len(colors) > MAX_COLORS:
        return Remedy({}, f"{len(colors)} colours: photographs, or JPEG instead of PNG?")
    if rule.label_map is not None or rule.reduce_zero_label:
        remark = "give mask_colors; label_map and reduce_zero_label then mean places in that list"
        return Remedy({}, f"{remark}, so that nothing can be proposed beside them")
    found: dict[tuple[int, ...], int] = {
        (c >> 16, c >> 8 & 255, c & 255): n for c, n in colors.items()
    }
    known = [tuple(map(int, color)) for color in palette or []]
    extra = sorted(set(found) - set(known))
    if set(found) <= {(k, k, k) for k in range(count)}:
        listed: list[tuple[int, ...]] = [(k, k, k) for k in range(count)]
        remark = "grey pictures saved as colour: the grey value is the class"
    elif known and len(set(known)) == len(known) and len(extra) < len(found):
        listed = [*known, *extra]
        remark = "the colours of metainfo.palette, in its order"
    elif len(found) < count:
        remark = f"{len(found)} colours for {count} classes: {_listed(sorted(found))}; which class has which cannot be "
        return Remedy(
            {}, f"{remark}known: set mask_colors, or metainfo.palette, to the classes' colours"
        )
    else:
        by_size = sorted(found, key=lambda color: -found[color])
        listed = sorted(by_size[:count]) + by_size[count:]
        remark = "put the colours into the order of the classes: which is which cannot be known"
    arguments: dict[str, Any] = {"mask_colors": [list(color) for color in listed]}
    if len(listed) > count:
        label_map = {k: k for k in range(count)}
        label_map |= dict.fromkeys(range(count, len(listed)), rule.ignore_index)
        arguments["label_map"] = label_map
        remark += f"; {len(listed) - count} colours beyond the classes are ignored"
    return Remedy(arguments, remark)


def class_weights(pixels: Sequence[int], present: Sequence[int]) -> list[float]:
    """Median-frequency weights: median(f) / f_c, where f_c = pixels of c / pixels of the images that show c.

    Source: Eigen and Fergus 2015, arXiv:1411.4734.

    Args:
        pixels: (C,) pixels of each class.
        present: (C,) counted pixels of the images in which each class occurs.

    Returns:
        (C,), three digits; 1 for a class that never occurs.
    """
    share = [p / n if p else np.nan for p, n in zip(pixels, present, strict=True)]
    if np.isnan(share).all():
        return [1.0] * len(share)
    median = float(np.nanmedian(share))
    return [1.0 if np.isnan(f) else float(f"{median / f:.3g}") for f in share]


def _extended(values: set[int], rule: LabelRule) -> Remedy:
    """Beside a rule that is there: what it does not know is ignored, and nothing else changes."""
    raw = np.array(sorted(values), dtype=np.int64)
    _, wrong = rule.labels_of(raw)
    shift = 1 if rule.reduce_zero_label else 0
    strays = [int(value) - shift for value in raw[wrong]]
    known = dict(rule.label_map or {k: k for k in range(rule.num_classes or 0)})
    if not strays:
        return Remedy({}, "")
    if any(stray in known for stray in strays):
        stray = next(stray for stray in strays if stray in known)
        problem = (
            f"label_map sends {stray} to {known[stray]}, but there are {rule.num_classes} classes"
        )
        return Remedy({}, problem)
    if len(strays) > _MAX_EXTRA:
        what = f"{len(strays)} values that the labels' rule does not know"
        return Remedy({}, f"{what}: instance numbers, a photograph, or JPEG instead of PNG?")
    remark = f"{_listed(strays)} beyond what was known: ignored by this map; "
    remark += "if they are classes, map them to their labels"
    if shift:
        remark += " (label_map counts after reduce_zero_label)"
    return Remedy({"label_map": known | dict.fromkeys(strays, rule.ignore_index)}, remark)


def _ambiguous(values: set[int], rule: LabelRule) -> Remedy:
    what = f"masks hold {_listed(sorted(values))} for {rule.num_classes} classes, {rule.ignore_index} ignored"
    return Remedy({}, f"{what}: which is which cannot be known, set label_map")


def _ranked(values: set[int]) -> Remedy:
    label_map = {value: rank for rank, value in enumerate(sorted(values))}
    return Remedy({"label_map": label_map}, "as many values as classes, in the same order")


def _listed(values: Sequence) -> str:
    shown = ", ".join(map(str, values[:6]))
    return f"{shown} and {len(values) - 6} more" if len(values) > 6 else shown
