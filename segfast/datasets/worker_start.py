"""WorkerStart: how a dataloader's worker process begins."""

# SPDX-License-Identifier: Apache-2.0

import multiprocessing
import signal
from collections.abc import Callable

from segfast._native import obey_sigterm_of


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
        training = multiprocessing.parent_process()  # not getppid: a fork server may lie between
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if training is not None:
            obey_sigterm_of(training.pid)
        if self.init_fn is not None:
            self.init_fn(worker_id)
