"""What a data set's arguments would have to be for the values or colours that its masks hold."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from segfast.datasets.scan import MAX_COLORS

_MAX_EXTRA = 32  # more values than that beyond the classes are no classes


class Remedy(NamedTuple):
    """Arguments that mend a data set, and what to know about them."""

    arguments: dict[str, Any]
    remark: str


def mend_values(values: set[int], num_classes: int, ignore_index: int) -> Remedy:
    """Arguments for masks of indices.

    Args:
        values: every raw value that occurs.
        num_classes: C.
        ignore_index: the label of pixels that do not count.

    Returns:
        No arguments where nothing is sure; the remark says what the values look like.
    """
    classes = set(range(num_classes))
    extra = sorted(values - classes - {ignore_index})
    plain = {"label_map": None, "reduce_zero_label": False}
    counted = values - {ignore_index}
    if counted and min(counted) == 1 and max(counted) == num_classes:
        remark = "labels start at 1, reduce_zero_label makes them start at 0"
        return Remedy({"reduce_zero_label": True, "label_map": None}, remark)
    if len(values) == num_classes and values != classes and not values < classes | {ignore_index}:
        return _ranked(values)
    if num_classes == 2 and values == {0, 255}:
        return _ranked(values)
    if not extra:
        return Remedy(plain, "the values are the classes")
    if len(counted) == num_classes:
        return _ranked(counted)
    if len(extra) > _MAX_EXTRA:
        what = f"{len(values)} different values for {num_classes} classes"
        return Remedy({}, f"{what}: instance numbers, a photograph, or JPEG instead of PNG?")
    label_map = {k: k for k in range(num_classes)} | dict.fromkeys(extra, ignore_index)
    remark = f"{_listed(extra)} beyond the {num_classes} classes: ignored by this map; "
    remark += "if they are classes, name them in metainfo.classes and count them in num_classes"
    if values - {ignore_index} == set(range(num_classes + 1)):
        remark += (
            f"; if 0 is the void label and not {num_classes}, set reduce_zero_label=True instead"
        )
    return Remedy({"label_map": label_map, "reduce_zero_label": False}, remark)


def mend_colors(
    colors: Mapping[int, int], num_classes: int, ignore_index: int, palette: Sequence | None
) -> Remedy:
    """Arguments for masks that are colour pictures.

    Args:
        colors: packed RGB colour -> pixels, of all masks.
        num_classes: C.
        ignore_index: the label of pixels that do not count.
        palette: the classes' RGB colours, if the data set has them.
    """
    if len(colors) > MAX_COLORS:
        return Remedy({}, f"{len(colors)} colours: photographs, or JPEG instead of PNG?")
    found: dict[tuple[int, ...], int] = {
        (c >> 16, c >> 8 & 255, c & 255): n for c, n in colors.items()
    }
    known = [tuple(map(int, color)) for color in palette or []]
    extra = sorted(set(found) - set(known))
    if set(found) <= {(k, k, k) for k in range(num_classes)}:
        listed: list[tuple[int, ...]] = [(k, k, k) for k in range(num_classes)]
        remark = "grey pictures saved as colour: the grey value is the class"
    elif known and len(set(known)) == len(known) and len(extra) < len(found):
        listed = [*known, *extra]
        remark = "the colours of metainfo.palette, in its order"
    else:
        by_size = sorted(found, key=lambda color: -found[color])
        listed = sorted(by_size[:num_classes]) + by_size[num_classes:]
        extra = by_size[num_classes:]
        remark = "put the colours into the order of the classes: which is which cannot be known"
    arguments: dict[str, Any] = {"mask_colors": [list(color) for color in listed]}
    if len(listed) > num_classes:
        label_map = {k: k for k in range(num_classes)}
        label_map |= dict.fromkeys(range(num_classes, len(listed)), ignore_index)
        arguments["label_map"] = label_map
        remark += f"; {len(listed) - num_classes} colours beyond the classes are ignored"
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


def _ranked(values: set[int]) -> Remedy:
    label_map = {value: rank for rank, value in enumerate(sorted(values))}
    return Remedy(
        {"label_map": label_map, "reduce_zero_label": False},
        "as many values as classes, in the same order",
    )


def _listed(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:6]))
    return f"{shown} and {len(values) - 6} more" if len(values) > 6 else shown
