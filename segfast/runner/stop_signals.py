"""SIGTERM and SIGINT end a training between two iterations, with its state saved."""

# SPDX-License-Identifier: Apache-2.0

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from segfast.distributed import wait_for_all, world
from segfast.distributed.launch import leave
from segfast.distributed.world import LateMaximum
from segfast.errors import OutputError


class TrainingStopped(Exception):
    """Raised by the loops between two iterations once a signal has come; the Runner saves and leaves."""


class StopSignals:
    """While this context is open, the first SIGTERM or SIGINT is noted; a second one interrupts at once.

    Handlers belong to the main thread; elsewhere the context does nothing, and signals do what they did before. A
    signal that is ignored, as SIGINT is in a script's background, stays ignored.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        """Nothing has come."""
        self.received: signal.Signals | None = None
        self._of_any: LateMaximum | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Install the handlers."""
        self._of_any = LateMaximum() if world()[1] > 1 else None
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in self.SIGNALS}
            # None: installed by something else than Python, which could not be put back.
            self._before = {n: h for n, h in before.items() if h not in (signal.SIG_IGN, None)}
            for number in self._before:
                signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the handlers back that were there."""
        if self._of_any is not None and kind is None:
            self._of_any.finish()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}

    def check(self) -> None:
        """Raise if a signal has come; of several processes, all raise in the same place, one call later.

        Raises:
            TrainingStopped: it has.
        """
        if self._of_any is not None:
            number = self._of_any(self.received or 0)
            if number:
                self.received = signal.Signals(number)
                raise TrainingStopped
        elif self.received is not None:
            raise TrainingStopped

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if self._of_any is not None:
                return  # launchers repeat what has reached the processes already
            raise KeyboardInterrupt("interrupted twice: nothing was saved")
        self.received = signal.Signals(number)


def train_until_stopped(runner: Any) -> None:
    """The training loop of a Runner; a signal, or a file that cannot be written, ends it in good order.

    Raises:
        KeyboardInterrupt: SIGINT came (exit status 130). The state was saved after the iteration.
        SystemExit: SIGTERM came; the same, with status 143.
        OutputError: the disk is full, say; names the last good checkpoint.
    """
    with StopSignals() as runner.stop:
        try:
            saved = _train(runner)
        except OutputError as error:
            good = _how_to_go_on(runner, _last_checkpoint(runner))
            raise OutputError(error.path, error.reason, good) from error
        if runner.stop.received is None:
            return
        told = f"{runner.stop.received.name}{_how_to_go_on(runner, saved)}"
        runner.log.info(told)
        wait_for_all()  # the first process has written its files
        leave()
    if runner.stop.received == signal.SIGINT:
        raise KeyboardInterrupt(told)
    raise SystemExit(128 + runner.stop.received)


def _train(runner: Any) -> str | None:
    """To the end, or until a signal has come; then the file to go on from, if there is one."""
    try:
        runner.train_loop.run()
        runner.stop.received = None  # too late to stop anything
    except TrainingStopped:
        hook = runner.checkpoint_hook
        return hook.save_now(runner) if hook else None
    except RuntimeError as error:
        if runner.stop.received is None or world()[1] > 1:
            raise
        # A worker that died of the same signal raises here, anywhere in a step: that state is not worth saving.
        runner.log.warning(str(error))
    return _last_checkpoint(runner)


def _last_checkpoint(runner: Any) -> str | None:
    hook = runner.checkpoint_hook
    return hook.last_checkpoint if hook else None


def _how_to_go_on(runner: Any, checkpoint: str | None) -> str:
    """Behind what stopped the training: where it stands, and what to resume."""
    kept = f"resume=True goes on from {checkpoint}" if checkpoint else "no state was saved"
    return f": training stopped after iteration {runner.iter}; {kept}"
