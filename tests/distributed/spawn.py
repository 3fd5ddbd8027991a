"""Starts processes that find each other as torchrun's do, without torchrun's own start."""

# SPDX-License-Identifier: Apache-2.0

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(processes, *arguments, **environment):
    """`python work.py ARGUMENTS` in each of several processes."""
    shared = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(processes),
        **environment,
    }
    return [
        subprocess.Popen(
            [sys.executable, "-P", str(HERE / "work.py"), *map(str, arguments)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for rank in range(processes)
    ]


def finish(workers, timeout=300):
    """(exit status, stdout, stderr) of each; kills what is left then, or after the timeout."""
    try:
        for worker in workers:
            worker.wait(timeout=timeout)
    finally:
        for worker in workers:  # their own workers hold the pipes open
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
    outputs = [worker.communicate() for worker in workers]
    return [(worker.returncode, *texts) for worker, texts in zip(workers, outputs, strict=True)]


def run(processes, *arguments, **environment):
    """Start them and expect that all end well; their stdout."""
    results = finish(start(processes, *arguments, **environment))
    errors = "\n".join(result[2] for result in results)
    assert [result[0] for result in results] == [0] * processes, errors
    return [result[1] for result in results]
