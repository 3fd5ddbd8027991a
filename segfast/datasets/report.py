"""The facts about a whole data set, added up: problems by kind, pixels and images of each class, mean and std."""

# SPDX-License-Identifier: Apache-2.0
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segfast.datasets.labels import LabelRule, pack_color
from segfast.datasets.scan import Facts

LABEL_KINDS = ("label out of range", "colour mask", "hidden class")  # other arguments would mend it
# What may be meant so: it is listed, and does not make a data set a bad one.
NOTES = (
    "pages", "channels", "mask without image", "empty class in evaluation", "picture of another ending", "no labels",
)  # fmt: skip


class DatasetReport:
    """One data set of a config.

    Args:
        key: where it stands, `train_dataloader.dataset`.
        classes: names, or None.
        rule: how its raw mask values become labels.
        color_type: how its images are loaded.

    Attributes:
        problems: kind -> lines, one a file.
        values: raw mask value -> pixels.
        colors: packed RGB colour -> pixels, of masks that are colour pictures.
        num_images: samples that were looked at.
        can_be_mended: whether raw values were seen, to which arguments of the data set apply.
        mended: the rule with which classes are counted: `rule`, or what would mend it.
    """

    def __init__(self, key: str, classes: Any, rule: LabelRule, color_type: str = "color") -> None:
        """Nothing counted yet."""
        self.key, self.classes, self.rule, self.color_type = key, classes, rule, color_type
        self.mended = rule
        self.problems: dict[str, list[str]] = {}
        self.values: Counter[int] = Counter()
        self.colors: Counter[int] = Counter()
        self.num_images = 0
        self.palette: Any = None
        self.can_be_mended = True
        self._images: Counter[int] = Counter()  # raw value -> images that hold it
        self._beside: Counter[int] = Counter()  # raw value -> pixels of those images
        self._color_images: Counter[int] = Counter()  # the same of colours
        self._color_beside: Counter[int] = Counter()
        self._sums: dict[int, np.ndarray] = {}  # channels -> sums
        self._by_channels: dict[int, list[str]] = {}

    @property
    def mode(self) -> str:
        """train, val or test."""
        return self.key.split("_")[0]

    def note(self, kind: str, line: str) -> None:
        """One more problem."""
        self.problems.setdefault(kind, []).append(line)

    def add(self, facts: Facts) -> None:
        """One more sample."""
        self.num_images += 1
        for kind, line in facts.problems:
            self.note(kind, line)
        self.values.update(facts.values)
        self.colors.update(facts.colors)
        for seen, images, beside in (
            (facts.values, self._images, self._beside),
            (facts.colors, self._color_images, self._color_beside),
        ):
            images.update(seen.keys())
            beside.update(dict.fromkeys(seen, sum(seen.values())))
        if facts.channels:
            self._by_channels.setdefault(facts.channels, []).append(facts.path)
        if facts.sums is not None:
            loaded = facts.sums.shape[1]
            self._sums[loaded] = self._sums.get(loaded, 0) + facts.sums

    def finish(self) -> None:
        """What shows only at the end: a class that is all ignored, images of other channel counts than most."""
        rule = self.rule
        plain = rule.label_map is None and not rule.reduce_zero_label
        if (
            plain
            and rule.num_classes == 2
            and set(self.values) == {0, 255} == {0, rule.ignore_index}
        ):
            line = "masks hold only 0 and 255, and 255 is ignored: the second class is never seen"
            self.note("hidden class", f"{self.key}: {line}")
        if len(self._by_channels) < 2:
            return
        usual = max(self._by_channels, key=lambda n: len(self._by_channels[n]))
        kind = "other channels" if self.color_type == "unchanged" else "channels"
        for channels, paths in sorted(self._by_channels.items()):
            for path in paths if channels != usual else []:
                self.note(kind, f"{path}: {channels} channels, most images have {usual}")

    def serious(self) -> dict[str, list[str]]:
        """The problems without mere notes."""
        return {kind: lines for kind, lines in self.problems.items() if kind not in NOTES}

    def apply(self, arguments: Mapping[str, Any]) -> None:
        """Count classes as if the data set had these arguments."""
        colors = arguments.get("mask_colors")
        if colors is not None:
            places = {pack_color(color): place for place, color in enumerate(colors)}
            self.values, self._images, self._beside = (
                Counter({places[color]: counts[color] for color in counts if color in places})
                for counts in (self.colors, self._color_images, self._color_beside)
            )
        changes = {name: arguments[name] for name in ("reduce_zero_label",) if name in arguments}
        if "label_map" in arguments:
            changes["label_map"] = tuple(arguments["label_map"].items())
        self.mended = dataclasses.replace(self.rule, **changes)

    @property
    def is_colored(self) -> bool:
        """Whether its masks are colour pictures; a few among index masks are no reason to read all so."""
        return bool(self.colors) and not self.values

    def classes_seen(self) -> list[tuple[int, int, int]]:
        """Per class: its pixels, the images that show it, and the pixels of those images.

        Returns:
            C rows. Where several raw values make one class, images are those of the most frequent one.
        """
        raw = np.array(sorted(self.values), dtype=np.int64)
        labels, _ = self.mended.labels_of(raw) if len(raw) else (raw, raw)
        rows = [[0, 0, 0] for _ in range(self.mended.num_classes or 0)]
        for value, label in zip(raw.tolist(), labels.tolist(), strict=True):
            if 0 <= label < len(rows) and label != self.mended.ignore_index:
                row = rows[label]
                row[0] += self.values[value]
                row[1] = max(row[1], self._images[value])
                row[2] = max(row[2], self._beside[value])
        return [(row[0], row[1], row[2]) for row in rows]

    def channel_sums(self) -> dict[int, np.ndarray]:
        """Channels -> (3, channels): pixels, sum and sum of squares of the images that have as many."""
        return dict(self._sums)


def classes_of(parts: Sequence[DatasetReport]) -> list[tuple[int, int, int]]:
    """`classes_seen` of a data set that has several parts; none where they differ in their classes."""
    rows = [part.classes_seen() for part in parts]
    if len({len(part) for part in rows}) > 1:
        return []
    sums = [np.sum(same_class, axis=0).tolist() for same_class in zip(*rows, strict=True)]
    return [(row[0], row[1], row[2]) for row in sums]


def note_empty_classes(parts: Sequence[DatasetReport]) -> None:
    """Classes of which no pixel was seen in any part of a data set; in validation that may be chance."""
    first = parts[0]
    kind = "empty class" if first.mode == "train" else "empty class in evaluation"
    rows = classes_of(parts) if any(part.values for part in parts) else []
    for label, (pixels, _, _) in enumerate(rows):
        if not pixels:
            name = f" ({first.classes[label]})" if first.classes else ""
            where = (
                first.key
                if len(parts) == 1
                else f"the {len(parts)} parts of {first.mode}_dataloader"
            )
            first.note(kind, f"class {label}{name}: occurs in no mask of {where}")


def channel_statistics(
    parts: Sequence[DatasetReport],
) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of each channel (BGR order), of the images of the usual channel count."""
    found: dict[int, np.ndarray] = {}
    for part in parts:
        for channels, sums in part.channel_sums().items():
            found[channels] = found.get(channels, 0) + sums
    if not found:
        return None
    usual = max(found, key=lambda n: found[n][0, 0])
    pixels, total, squares = found[usual]
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0.0))
    rounded = [[float(f"{value:.6g}") for value in array] for array in (mean, std)]
    return rounded[0], [value or 1.0 for value in rounded[1]]
