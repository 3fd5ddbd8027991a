"""WorkerStart: how a dataloader's worker process begins."""

# SPDX-License-Identifier: Apache-2.0

import os
import signal
import threading
from collections.abc import Callable


class WorkerStart:
    """Leaves it to the training when to stop, then calls the `worker_init_fn` of the config.

    A Ctrl-C, or a SIGTERM to the whole process group, reaches the workers as well; a training that lost them could not
    finish its iteration. So workers ignore SIGINT, and every SIGTERM that does not come from the training itself.
    """

    def __init__(self, init_fn: Callable[[int], None] | None) -> None:
        """Take the function of the config, if there is one."""
        self.init_fn = init_fn

    def __call__(self, worker_id: int) -> None:
        """In the worker."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked worker has the training's handler
        if hasattr(signal, "sigwaitinfo"):  # not on macOS
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            name = "segfast-sigterm"
            threading.Thread(target=_obey, args=(os.getppid(),), name=name, daemon=True).start()
        if self.init_fn is not None:
            self.init_fn(worker_id)


def _obey(training: int) -> None:
    """Wait for the SIGTERM of that process, then die of it."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != training:
        pass
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGTERM)
