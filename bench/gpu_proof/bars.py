"""The bars a GPU record is held to: what was asked, what was measured, whether that is enough.

A bar holds for all of its cases. Where one was not measured it is not met, it is open: `met` is None.
"""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Row = Mapping[str, Any]
GPU, DRY_RUN = "gpu", "dry_run"  # kinds of record


class Bar(NamedTuple):
    """At least `least` for every case of an operator whose name begins with `prefix`."""

    op: str
    prefix: str
    text: str
    least: float
    value: Callable[[Row], float | None]


def _over_compiled(row: Row) -> float | None:
    return row["compiled_ms"] / row["segfast_ms"] if "compiled_ms" in row else None


def _less_memory(row: Row) -> float | None:
    return row["eager_mib"] / max(row["segfast_mib"], 1e-3) if "segfast_mib" in row else None


def _bandwidth(row: Row) -> float:
    return row["percent_of_copy"]


def _over_eager(row: Row) -> float:
    return row["ratio"]


_LARGE = "16x150x128x128 -> 512x512"
BARS = (
    Bar("normalize_pad_stack", "", "% of the copy bandwidth", 85, _bandwidth),
    Bar("confusion_matrix", "", "% of the copy bandwidth", 85, _bandwidth),
    Bar("cross_entropy", "", "times eager's speed", 3, _over_eager),
    Bar("cross_entropy", "", "times torch.compile's speed", 1.3, _over_compiled),
    Bar("upsample_cross_entropy", _LARGE, "times eager's speed", 10, _over_eager),
    Bar("upsample_cross_entropy", _LARGE, "times torch.compile's speed", 4, _over_compiled),
    Bar("upsample_cross_entropy", _LARGE, "times less extra memory than eager", 20, _less_memory),
    Bar("upsample_argmax", "", "times eager's speed", 10, _over_eager),
    Bar("upsample_confusion_matrix", "", "times eager's speed", 10, _over_eager),
)


def evaluate(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every bar as dict(bar, measured, met), `met` True, False or None; nothing is shown by a dry run."""
    rows, problems = record.get("rows", []), record.get("problems", {})
    if record["kind"] != GPU:
        rows = []
    return [
        *(_operator(bar, rows, problems) for bar in BARS),
        _same_bits(rows),
        *_no_waits(record.get("step", {})),
    ]


def _operator(bar: Bar, rows: list[Row], problems: Mapping[str, Any]) -> dict[str, Any]:
    chosen = [row for row in rows if row["op"] == bar.op and row["case"].startswith(bar.prefix)]
    found = [(row, bar.value(row)) for row in chosen]
    values = {row["case"]: value for row, value in found if value is not None}
    unknown = len(chosen) - len(values)
    measured = {row["case"] for row in chosen}
    lost = [name.split(": ", 1)[1] for name in problems if name.startswith(f"{bar.op}: ")]
    unknown += len([case for case in lost if case.startswith(bar.prefix) and case not in measured])
    name = f"`{bar.op}`{f' {bar.prefix}' if bar.prefix else ''}: {bar.least:g} {bar.text}"
    if not values:
        return {"bar": name, "measured": "-", "met": None}
    worst = min(values, key=lambda case: values[case])
    enough = sum(value >= bar.least for value in values.values())
    text = f"{values[worst]:.1f} ({worst}) to {max(values.values()):.1f}; {enough} of {len(values)} cases"
    if unknown:
        text += f", {unknown} not measured"
    met = False if enough < len(values) else None if unknown else True
    return {"bar": name, "measured": text, "met": met}


def _same_bits(rows: list[Row]) -> dict[str, Any]:
    seen = [row["same_bits"] for row in rows if "same_bits" in row]
    text = f"{sum(seen)} of {len(seen)} cases, three calls each" if seen else "-"
    return {
        "bar": "the same bits on every run",
        "measured": text,
        "met": all(seen) if seen else None,
    }


def _no_waits(step: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Waits of segfast's side; worth something only if the counter saw a wait that was made on purpose."""
    result = []
    for name, parts in (
        ("a training iteration between two log lines", ("train", "train_with_loading")),
        ("a validation batch", ("val",)),
    ):
        counts = [step.get(part, {}).get("segfast", {}).get("syncs") for part in parts]
        known = [count for count in counts if count is not None]
        met: bool | None = None
        if known and any(known):
            met = False
        elif len(known) == len(counts) and step.get("sync_counter_works"):
            met = True
        text = ", ".join(f"{count:g}" for count in known) or "-"
        result.append({"bar": f"no host sync in {name}", "measured": text, "met": met})
    return result
