"""Writes the README's tables of results: `python bench/table.py` (after `segfast bench --json ...` or a GPU proof).

Between `<!-- results:begin KIND -->` and `<!-- results:end -->` stands what `render` makes of the newest folder
`bench/results/KIND_<yyyymm>`; all of its files go into one table. Of KIND gpu it is the proof's record, with a word on
whether the kernels have changed since, or that there is none.
"""

# SPDX-License-Identifier: Apache-2.0

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segfast.bench.gpu_proof import bars, report
from segfast.bench.records import newest, read
from segfast.bench.source_tree import tree_hash

_BLOCK = re.compile(r"(<!-- results:begin (\w+) -->\n).*?(<!-- results:end -->)", re.DOTALL)
Row = dict[str, Any]
_COLUMNS: dict[str, Callable[[Row], str]] = {
    "case": lambda row: row["case"],
    "eager ms": lambda row: f"{row['eager_ms']:.2f}",
    "torch.compile ms": lambda row: f"{row['compiled_ms']:.2f}",
    "segfast ms (p20-p80)": lambda row: (
        f"{row['segfast_ms']:.2f} ({row['segfast_spread_ms'][0]:.2f}-{row['segfast_spread_ms'][1]:.2f})"
    ),
    "times faster": lambda row: f"{row['ratio']:.1f}",
    "% of copy": lambda row: f"{row['percent_of_copy']:.0f}",
    "1 thread: times faster": lambda row: f"{row['ratio_1_thread']:.1f}",
    "MiB beyond inputs and outputs (eager)": lambda row: (
        f"{row['segfast_mib']:.0f} ({row['eager_mib']:.0f})"
    ),
}


def update(text: str, root: Path) -> str:
    """The README's text with every marked block made anew from the results under `root`."""

    def block(match: re.Match) -> str:
        kind = match[2]
        new = render_gpu(root) if kind == "gpu" else render(newest(root, kind))
        return f"{match[1]}{new}{match[3]}"

    return _BLOCK.sub(block, text)


def render_gpu(root: Path) -> str:
    """The newest GPU record under `root`, beside the sources that lie there.

    Raises:
        ValueError: what lies in its place is a dry run.
    """
    try:
        folder = newest(root, "gpu")
    except FileNotFoundError:
        return report.NO_RECORD
    (record,) = read(folder)
    if record["kind"] != bars.GPU:
        raise ValueError(f"{folder}: a dry run is no GPU record")
    return f"{report.render(record, tree_hash(root / 'csrc'))}(`bench/results/{folder.name}`)\n"


def render(folder: Path) -> str:
    """One folder of results as Markdown: how it was measured, a table per operator, the Runner's overhead."""
    records = read(folder)
    rows = _merge(records)
    threads = max(row["threads"] for row in rows)
    lines = [_caption(records, rows, threads, folder.name), ""]
    for op in dict.fromkeys(row["op"] for row in rows):
        lines += [*_table(op, [row for row in rows if row["op"] == op]), ""]
    for record in records:
        if "runner" in record:
            low, high = record["runner"]["overhead_spread_us"]
            lines += [
                f"The Runner adds {record['runner']['overhead_us']:.0f} us ({low:.0f}-{high:.0f}) to an iteration of a "
                f"bare loop.",
                "",
            ]
    return "\n".join(lines)


def _merge(records: list[dict[str, Any]]) -> list[Row]:
    """One row per case: the run with most threads, with the ratio on one thread and the memory beside it."""
    merged: dict[tuple[str, str], Row] = {}
    rows = [row for record in records for row in record["rows"]]
    for row in sorted(rows, key=lambda row: -row["threads"]):
        first = merged.setdefault((row["op"], row["case"]), dict(row))
        if row["threads"] == 1 and first["threads"] > 1:
            first["ratio_1_thread"] = row["ratio"]
    for row in (row for record in records for row in record.get("memory", [])):
        known = merged.get((row["op"], row["case"]))
        if known is not None:
            known |= {key: row[key] for key in ("segfast_mib", "eager_mib")}
    return list(merged.values())


def _caption(records: list[dict[str, Any]], rows: list[Row], threads: int, name: str) -> str:
    """Machine, threads, versions, commit; what differs between the files is named with all its values."""

    def every(values: list[str]) -> str:
        return ", ".join(dict.fromkeys(values))

    builds = [record["build"] for record in records]
    copies = [row["copy_gbs"] for row in rows if row["threads"] == threads]
    return (
        f"{every([record['device'] for record in records])}, {threads} threads, "
        f"{every([build['cpu_capability'] for build in builds])} kernels, "
        f"torch {every([build['torch_running'] for build in builds])}, "
        f"{every([build['compiler'] for build in builds])}, commit {every([record['commit'] for record in records])}; "
        f"medians of interleaved calls in one process, a plain copy moves {min(copies):.0f}-{max(copies):.0f} GB/s "
        f"(`bench/results/{name}`)."
    )


def _table(op: str, rows: list[Row]) -> list[str]:
    """A table of the columns that every row of it has."""
    columns = {}
    for title, cell in _COLUMNS.items():
        try:
            columns[title] = [cell(row) for row in rows]
        except KeyError:
            continue
    header = [
        f"| `{op}` | " + " | ".join(list(columns)[1:]) + " |",
        "|---|" + "---:|" * (len(columns) - 1),
    ]
    return [
        *header,
        *("| " + " | ".join(cells) + " |" for cells in zip(*columns.values(), strict=True)),
    ]


if __name__ == "__main__":
    readme = Path(__file__).resolve().parents[1] / "README.md"
    old = readme.read_text(encoding="utf-8")
    if not _BLOCK.search(old):
        sys.exit(f"{readme}: no block <!-- results:begin KIND --> ... <!-- results:end -->")
    readme.write_text(update(old, readme.parent), encoding="utf-8")
