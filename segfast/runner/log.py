"""What a run tells: a progress bar on the screen, a text log, one JSON object per line of metrics."""

# SPDX-License-Identifier: Apache-2.0

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm


class RunLog:
    """Writes `log.txt` and `metrics.jsonl` in a work_dir and draws the progress bar.

    Args:
        work_dir: an existing folder.
        quiet: only the files, nothing on the screen.
    """

    def __init__(self, work_dir: Path, quiet: bool = False) -> None:
        """Open both files for appending: a resumed run continues them."""
        self.quiet = quiet
        self._text = (work_dir / "log.txt").open("a", encoding="utf-8")
        self._metrics = (work_dir / "metrics.jsonl").open("a", encoding="utf-8")
        self._bar: tqdm | None = None

    def info(self, text: str) -> None:
        """A line (or several) for the reader, with the time in the file."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        for line in text.splitlines():
            self._text.write(f"{stamp} {line}\n")
        self._text.flush()
        if not self.quiet:
            tqdm.write(text, file=sys.stdout)

    def file_only(self, text: str) -> None:
        """A line for the file alone: the bar shows it on the screen."""
        self._text.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self._text.flush()

    def metrics(self, record: dict[str, Any]) -> None:
        """One JSON line; NaN is written as null."""
        plain = {key: _json_value(value) for key, value in record.items()}
        self._metrics.write(json.dumps(plain) + "\n")
        self._metrics.flush()

    def start_bar(self, total: int, done: int) -> None:
        """Begin the training's progress bar."""
        # With no terminal (a file, CI) a bar would be noise: one refresh in half a minute.
        interval = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            total=total,
            initial=done,
            disable=self.quiet,
            mininterval=interval,
            dynamic_ncols=True,
            desc="train",
        )

    def advance_bar(self, values: dict[str, str] | None = None) -> None:
        """One more iteration; `values` replaces what stands behind the bar."""
        if self._bar is not None:
            if values is not None:
                text = ", ".join(f"{key}={value}" for key, value in values.items())
                self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()

    def close(self) -> None:
        """Close the bar and both files."""
        if self._bar is not None:
            self._bar.close()
        self._text.close()
        self._metrics.close()


def _json_value(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    seconds = int(seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
