"""A GPU record as Markdown: where it was made, the stages, the bars, the operators, the whole step."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping, Sequence
from typing import Any

from .bars import GPU

Row = Mapping[str, Any]
NO_RECORD = (
    "No GPU record exists yet: the CUDA kernels are compiled, and emulated on the CPU, but have never run on a device. "
    "`python bench/gpu_proof` makes the record.\n"
)
_MET = {True: "yes", False: "**no**", None: "not shown"}
_STEPS = {
    "train": "training step, batches ready on the host",
    "train_with_loading": "training step with data loading",
    "val": "validation batch",
}


def render(record: Mapping[str, Any], present_csrc: str) -> str:
    """The whole record.

    Args:
        record: what `driver` wrote.
        present_csrc: hash of the sources that the text stands beside.
    """
    lines = [caption(record, present_csrc), ""]
    lines += [f"- {name}: {stage_line(stage)}" for name, stage in record["stages"].items()]
    lines += ["", *bar_table(record.get("bars", [])), ""]
    rows = record.get("rows", [])
    for op in dict.fromkeys(row["op"] for row in rows):
        lines += [*_operator_table(op, [row for row in rows if row["op"] == op]), ""]
    if any(name in record.get("step", {}) for name in _STEPS):
        lines += [*_step_table(record["step"]), ""]
    return "\n".join(lines)


def caption(record: Mapping[str, Any], present_csrc: str) -> str:
    """Where, with what, when, and whether the kernels are still those."""
    facts = record.get("facts", {})
    device = facts.get("device", "unknown device")
    if record["kind"] != GPU:
        return f"**DRY RUN on the CPU ({device}): it shows that the plumbing works and measures nothing.**"
    build = facts.get("build", {})
    copy_gbs = record.get("copy_gbs")
    words = [
        f"{device} (sm_{facts.get('capability', '?').replace('.', '')}, driver {facts.get('driver', '?')})",
        f"torch {build.get('torch_running', '?')}, CUDA {facts.get('cuda')}, nvcc {build.get('cuda')}",
        f"{record['date']}, commit {record['commit']}",
        *([f"a plain copy moves {copy_gbs:.0f} GB/s"] if copy_gbs else []),
    ]
    recorded = record["csrc"]
    state = (
        "the present kernels" if recorded == present_csrc else "**the kernels have changed since**"
    )
    return f"{'; '.join(words)}. Recorded for csrc {recorded[:12]}: {state}."


def stage_line(stage: Mapping[str, Any]) -> str:
    """Status, seconds, and a word on it."""
    text = f": {stage['text']}" if stage.get("text") else ""
    return f"{stage['status']} ({stage['seconds']:.0f} s){text}"


def bar_table(bars: Sequence[Row]) -> list[str]:
    """A line per bar."""
    lines = ["| bar | measured | met |", "|---|---|---|"]
    return lines + [f"| {bar['bar']} | {bar['measured']} | {_MET[bar['met']]} |" for bar in bars]


def _operator_table(op: str, rows: Sequence[Row]) -> list[str]:
    titles = ["eager ms", "torch.compile ms", "segfast ms (p20-p80)", "times faster", "% of copy"]
    titles += ["extra MiB (eager)", "kernels (eager)"]
    lines = [f"| `{op}` | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)]
    for row in rows:
        low, high = row["segfast_spread_ms"]
        cells = [
            row["case"],
            f"{row['eager_ms']:.3f}",
            _number(row.get("compiled_ms"), ".3f"),
            f"{row['segfast_ms']:.3f} ({low:.3f}-{high:.3f})",
            f"{row['ratio']:.1f}",
            f"{row['percent_of_copy']:.0f}",
            f"{_number(row.get('segfast_mib'), '.1f')} ({_number(row.get('eager_mib'), '.1f')})",
            f"{_number(row.get('segfast_kernels'), 'd')} ({_number(row.get('eager_kernels'), 'd')})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _step_table(step: Mapping[str, Any]) -> list[str]:
    plan = step["plan"]
    shape = (
        f"{plan['batch']} images {plan['size'][0]}x{plan['size'][1]}, {plan['num_classes']} classes"
    )
    what = f"{step['parameters'] / 1e6:.1f} M parameters, {shape}, {step['amp']}"
    titles = ["eager ms", "segfast ms", "times faster", "images/s (eager)"]
    titles += ["peak MiB (eager)", "host syncs (eager)"]
    lines = [f"| {what} | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)]
    for name, title in _STEPS.items():
        if name not in step:
            continue
        eager, ours = step[name]["eager"], step[name]["segfast"]
        pairs = [
            f"{_number(ours.get(key), how)} ({_number(eager.get(key), how)})"
            for key, how in (("images_per_s", ".0f"), ("peak_mib", ".0f"), ("syncs", "g"))
        ]
        times = [f"{eager['ms']:.1f}", f"{ours['ms']:.1f}", f"{step[name]['ratio']:.2f}"]
        lines.append(f"| {' | '.join([title, *times, *pairs])} |")
    return lines


def _number(value: Any, how: str) -> str:
    return "-" if value is None else format(value, how)
