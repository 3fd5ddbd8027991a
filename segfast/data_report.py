"""DataReport: what check_data found, as objects, as lines for a file, and as tables for the screen."""

# SPDX-License-Identifier: Apache-2.0
import dataclasses
import shlex
from collections.abc import Iterator
from typing import Any

from segfast.datasets.report import NOTES, DatasetReport
from segfast.paths import one_line


@dataclasses.dataclass
class DataReport:
    """What `check_data` found.

    Attributes:
        datasets: one report for each data set of the config.
        proposals: dotted config keys -> values, as `overrides` of `train` takes them, that mend the labels.
        statistics: keys -> values for class weights and the images' mean and std; use is optional.
        remarks: what to know about the proposals.
    """

    datasets: list[DatasetReport]
    proposals: dict[str, Any]
    statistics: dict[str, Any]
    remarks: list[str]

    @property
    def num_problems(self) -> int:
        """Lines of all problems that are more than notes."""
        return sum(len(lines) for part in self.datasets for lines in part.serious().values())

    def lines(self) -> Iterator[str]:
        """Every problem and note, tab-separated: data set, kind, file and text; odd characters of names as escapes."""
        for part in self.datasets:
            for kind, lines in part.problems.items():
                yield from (f"{part.key}\t{kind}\t{one_line(line)}" for line in lines)

    def __str__(self) -> str:
        """The tables and proposals, for the screen."""
        return "\n".join(_screen(self))


def _screen(result: DataReport) -> Iterator[str]:
    for report in result.datasets:
        yield f"{report.key}: {report.num_images} images"
        if not report.problems:
            yield "  no problem found"
        for kind, lines in report.problems.items():
            mark = "note" if kind in NOTES else "PROBLEM"
            yield f"  {mark:8}{kind:22}{len(lines):6}  {one_line(lines[0])}"
            yield from (f"{'':38}{one_line(line)}" for line in lines[1:3])
        yield from _class_table(report)
        yield ""
    if result.proposals:
        yield "Would mend it (add to the command line, or set the keys in the config):"
        yield from (_line(key, value) for key, value in result.proposals.items())
    yield from (f"  # {remark}" for remark in result.remarks)
    if result.statistics:
        yield "Class weights by median frequency (median(f) / f_c, Eigen and Fergus 2015), mean and std, if wanted:"
        yield from (_line(key, value) for key, value in result.statistics.items())


def _class_table(report: DatasetReport) -> Iterator[str]:
    rows = report.classes_seen()
    total = sum(report.values.values())
    if not rows or not total:
        return
    changed = "" if report.mended == report.rule else " (with the labels that are proposed below)"
    yield f"  {'class':24}{'pixels':>14}{'share':>9}{'images':>8}{changed}"
    for label, (pixels, images, _) in enumerate(rows):
        name = report.classes[label] if report.classes else str(label)
        yield f"  {name[:23]:24}{pixels:14}{pixels / total:9.2%}{images:8}"
    ignored = total - sum(row[0] for row in rows)
    yield f"  {'(ignored or no class)':24}{ignored:14}{ignored / total:9.2%}"


def _line(key: str, value: Any) -> str:
    """`key=value` as a shell and `parse_override` take it."""
    text = repr(value)
    return "  " + shlex.quote(
        f"{key}={text if chr(34) in text else text.replace(chr(39), chr(34))}"
    )
