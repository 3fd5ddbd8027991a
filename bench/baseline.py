"""Compares ratios to eager with recorded ones: the only number of a bench that means something on another day."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from pathlib import Path

from segfast.bench.records import read

TOLERANCE = 0.25  # what a ratio may fall by before it is worth a look: clocks are noisy


def compare(ratios: Mapping[tuple[str, str], float], threads: int, folder: Path) -> list[str]:
    """Set ratios beside those of a folder of results.

    Args:
        ratios: (op, case) -> eager's time over segfast's.
        threads: only what was recorded with so many threads is compared.
        folder: what to compare with.

    Returns:
        A line per case, where FELL stands behind a ratio that is lower by more than TOLERANCE, and a summary.
    """
    recorded = {
        (row["op"], row["case"]): (row["ratio"], f"{record['device']}, commit {record['commit']}")
        for record in read(folder)
        for row in record["rows"]
        if row["threads"] == threads
    }
    lines, fell = [], 0
    for key, ratio in ratios.items():
        line = f"{': '.join(key):80s} {ratio:7.1f}"
        if key in recorded:
            before, where = recorded[key]
            line += f"   recorded {before:7.1f} ({where})"
            if ratio < (1 - TOLERANCE) * before:
                line, fell = f"{line}  FELL by {1 - ratio / before:.0%}", fell + 1
        lines.append(line)
    compared = sum(key in recorded for key in ratios)
    summary = f"{fell} of {compared} recorded ratios fell by more than {TOLERANCE:.0%}"
    return [*lines, f"{summary} ({folder.name}, {threads} threads)"]
