"""What a dataset says about its classes: names, palette, and the map from original labels."""

# SPDX-License-Identifier: Apache-2.0
import copy
import os
from collections.abc import Mapping, Sequence

from segfast.errors import ConfigError, DataError


def merge_metainfo(declared: Mapping, given: Mapping | None) -> dict:
    """A dataset class's METAINFO overridden by the `metainfo` argument.

    Args:
        declared: the class's own.
        given: the argument; a string that names an existing text file is read as a list of lines.

    Raises:
        ConfigError: `given` is no dict, or `classes` is no list of names.
        DataError: `classes` names a file that is not there.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError("metainfo", f"expected dict(classes=[...], palette=[...]), got {given!r}")
    merged = copy.deepcopy(dict(declared))
    for key, value in (given or {}).items():
        merged[key] = _read_lines(value) if _is_file(value) else copy.deepcopy(value)
    classes = merged.get("classes")
    if isinstance(classes, str):
        raise DataError(f"{classes}: no such file; metainfo.classes is a list of names or a file")
    are_names = isinstance(classes, list | tuple) and all(isinstance(c, str) for c in classes)
    if classes is not None and not are_names:
        raise ConfigError("metainfo.classes", f"expected a list of names, got {classes!r}")
    return merged


def _is_file(value: object) -> bool:
    return isinstance(value, str) and os.path.isfile(value)


def _read_lines(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip()]


def classes_label_map(
    declared: Sequence[str] | None, classes: Sequence[str] | None, ignore_index: int
) -> dict[int, int] | None:
    """Original label -> label when only some of a data set's classes are trained, or reordered.

    Args:
        declared: the classes in the masks' order; None when the data set declares none.
        classes: the classes to train.
        ignore_index: label of the classes that are left out.

    Returns:
        The map with every declared class in it, or None when there is nothing to map.

    Raises:
        ConfigError: a class that is not declared.
    """
    if declared is None or classes is None or tuple(declared) == tuple(classes):
        return None
    unknown = [name for name in classes if name not in declared]
    if unknown:
        known = ", ".join(declared)
        raise ConfigError("metainfo.classes", f"no class {unknown[0]!r} in this data set ({known})")
    return {
        old: classes.index(name) if name in classes else ignore_index
        for old, name in enumerate(declared)
    }


def choose_palette(
    palette: Sequence | None, num_classes: int, label_map: Mapping[int, int] | None
) -> list[list[int]]:
    """One RGB colour for each class.

    Args:
        palette: the declared colours, or None for `default_palette`.
        num_classes: C.
        label_map: where there are more colours than classes, original label -> label.

    Raises:
        ConfigError: the number of colours does not fit.
    """
    if not palette:
        return default_palette(num_classes)
    colors = [list(map(int, color)) for color in palette]
    if len(colors) == num_classes:
        return colors
    chosen = {
        new: colors[old]
        for old, new in (label_map or {}).items()
        if old < len(colors) and 0 <= new < num_classes
    }
    if len(colors) < num_classes or len(chosen) != num_classes:
        problem = f"expected {num_classes} colours, one for each class, got {len(colors)}"
        raise ConfigError("metainfo.palette", problem)
    return [chosen[label] for label in range(num_classes)]


def default_palette(num_classes: int) -> list[list[int]]:
    """Distinct RGB colours: label bits are dealt to red, green and blue, highest bit first.

    Label 0 is black, 1 dark red, 2 dark green; these are the colours of Pascal VOC masks.
    """
    palette = []
    for label in range(num_classes):
        color = [0, 0, 0]
        for place in range(8):
            for channel in range(3):
                bit = label >> (3 * place + channel) & 1
                color[channel] |= bit << (7 - place)
        palette.append(color)
    return palette
