"""What a run tells: a progress bar on the screen, a text log, one JSON object per line of metrics."""

# SPDX-License-Identifier: Apache-2.0

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

from tqdm import tqdm

from segfast.distributed import is_first, world
from segfast.errors import ConfigError, OutputError
from segfast.runner.atomic_file import write_atomically

_ENCODER = json.JSONEncoder(allow_nan=False)


class RunLog:
    """Writes `log.txt` and `metrics.jsonl` in a work_dir and draws the progress bar.

    Of several processes the first one does that; the others are silent but for errors.

    Both files are opened for appending when something is written: a resumed run continues them, and a runner that has
    trained may still test.

    Args:
        work_dir: the folder, created.
        quiet: only the files, nothing on the screen.

    Raises:
        ConfigError: the folder cannot be created.
    """

    def __init__(self, work_dir: Path, quiet: bool = False) -> None:
        """Create the folder, open nothing yet."""
        self._first = is_first()
        try:
            if self._first:
                work_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("work_dir", f"cannot create {work_dir}: {error.strerror}") from error
        self.work_dir, self.quiet = work_dir, quiet or not self._first
        self._files: dict[str, FileIO] = {}
        self._bar: tqdm | None = None

    def info(self, text: str) -> None:
        """A line (or several) for the reader, with the time in the file."""
        self.file_only(text)
        if not self.quiet:
            self._on_screen(lambda: tqdm.write(_printable(text), file=sys.stdout))

    def warning(self, text: str) -> None:
        """As `info`, marked."""
        self.info(f"warning: {text}")

    def error(self, text: str) -> None:
        """As `warning`; of the other processes, too."""
        self.warning(text)
        if not self._first:
            sys.stderr.write(f"process {world()[0]}: {_printable(text)}\n")

    def debug(self, text: str) -> None:
        """For the file alone."""
        self.file_only(text)

    def file_only(self, text: str) -> None:
        """Lines for the file alone: the bar shows them on the screen."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self._append("log.txt", "".join(f"{stamp} {line}\n" for line in text.splitlines()))

    def metrics(self, record: dict[str, Any]) -> None:
        """One JSON line; NaN is written as null."""
        try:
            text = _ENCODER.encode(record)
        except (TypeError, ValueError):
            text = json.dumps({key: _json_value(value) for key, value in record.items()})
        self._append("metrics.jsonl", f"{text}\n")

    def forget(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drop records that a resumed run will write again, and half a line that a kill left."""
        path = self.work_dir / "metrics.jsonl"
        if not self._first or not path.is_file():
            return
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = "".join(f"{line}\n" for line in lines if _is_record(line, wanted))
        write_atomically(path, lambda file: file.write(kept.encode()))

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
            self._on_screen(self._bar.update)

    def _on_screen(self, show: Callable[[], Any]) -> None:
        """Nobody listening any more, or a full disk behind it, is no reason to stop: the files have it all."""
        try:
            show()
        except OSError:
            self.quiet = True
            if self._bar is not None:
                self._bar.disable = True

    def close(self) -> None:
        """Close the bar and both files."""
        if self._bar is not None:
            self._on_screen(self._bar.close)
            self._bar = None
        for file in self._files.values():
            with contextlib.suppress(OSError):  # every line was written; its failure was reported
                file.close()
        self._files = {}

    def _append(self, name: str, text: str) -> None:
        if not self._first:
            return
        path = self.work_dir / name
        try:
            if name not in self._files:
                self._files[name] = path.open("ab", buffering=0)
            file, data = self._files[name], text.encode(errors="backslashreplace")
            while data:
                data = data[file.write(data) :]
        except OSError as error:
            raise OutputError(path, error) from error


def _is_record(line: str, wanted: Callable[[dict[str, Any]], bool]) -> bool:
    try:
        return wanted(json.loads(line))
    except (ValueError, AttributeError, TypeError, KeyError):
        return False


def _json_value(value: Any) -> Any:
    if not isinstance(value, (float, int, str)) and hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _printable(text: str) -> str:
    """For the screen: file names that are not UTF-8 with their bytes as escapes."""
    return text.encode(errors="backslashreplace").decode()


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    seconds = int(seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
