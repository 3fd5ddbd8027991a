"""SIGTERM and SIGINT: the iteration is finished, the state saved, the status says which it was."""

# SPDX-License-Identifier: Apache-2.0

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from toys import toy_config

from segfast.datasets.worker_start import WorkerStart
from segfast.errors import OutputError
from segfast.runner import Hook, Runner, atomic_file, checkpoint_hook
from segfast.runner.checkpoint import load_checkpoint

ITERATIONS = 60
METHODS = ("fork", "spawn", "forkserver")
COMMAND = [
    sys.executable, "-P", "-m", "segfast", "train", f"train_cfg.max_iters={ITERATIONS}", "train_cfg.val_interval=20",
    "train_dataloader.batch_size=2", "default_hooks.logger.interval=5", "--device", "cpu", "--seed", "1",
]  # fmt: skip


def killed_by(folder, stage, iteration, number, custom_hooks=(), **changes):
    """Train with a hook that sends this process a signal, once, at that point."""
    signals = [number]

    def act(self, runner, **_):
        if runner.iter == iteration and signals:
            os.kill(os.getpid(), signals.pop())

    hook = type("Kill", (Hook,), {stage: act})()
    Runner.from_cfg(toy_config(folder, custom_hooks=[*custom_hooks, hook], **changes)).train()


@pytest.mark.parametrize(
    "stage", ["before_train_iter", "after_train_iter", "before_val_iter", "after_val"]
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_goes_on_where_it_stopped(tmp_path, stage, number):
    whole = Runner.from_cfg(toy_config(tmp_path / "whole"))
    whole.train()
    handler = signal.getsignal(signal.SIGTERM)
    in_validation = "val" in stage
    with pytest.raises((SystemExit, KeyboardInterrupt)) as caught:
        killed_by(tmp_path / "again", stage, 10 if in_validation else 6, number)
    if number == signal.SIGTERM:
        assert caught.value.code == 143
    else:
        assert caught.type is KeyboardInterrupt
    assert signal.getsignal(signal.SIGTERM) == handler
    expected = 10 if stage == "before_val_iter" else 11 if in_validation else 7
    file = tmp_path / "again" / f"iter_{expected}.pth"
    told = f"training stopped after iteration {expected}; resume=True goes on from {file}"
    assert told in (tmp_path / "again/log.txt").read_text()
    assert load_checkpoint(file)["meta"]["iter"] == expected
    again = Runner.from_cfg(toy_config(tmp_path / "again"), resume=True)
    again.train()
    assert torch.equal(again.model.layer.weight, whole.model.layer.weight)
    assert again.metrics == whole.metrics


def test_in_a_validation_of_the_average(tmp_path):
    """The average is in the model then, and no checkpoint of that iteration is there yet."""
    changes = {
        "custom_hooks": [{"type": "EMAHook", "momentum": 0.1}],
        "default_hooks": {"checkpoint": {"interval": 7}, "visualization": None},
    }
    whole = Runner.from_cfg(toy_config(tmp_path / "whole", **changes))
    whole.train()
    with pytest.raises(SystemExit):
        killed_by(tmp_path / "again", "before_val_iter", 10, signal.SIGTERM, **changes)
    again = Runner.from_cfg(toy_config(tmp_path / "again", **changes), resume=True)
    again.train()
    assert again.resumed_from == tmp_path / "again/iter_10.pth"
    assert torch.equal(again.model.layer.weight, whole.model.layer.weight)
    assert again.metrics == whole.metrics


def test_a_full_disk_while_saving_for_a_signal(tmp_path, monkeypatch):
    plain = checkpoint_hook.CheckpointHook.save_now

    def save_now(self, runner):
        def full(self, data):
            self.failure = OSError(errno.ENOSPC, "No space left on device")
            raise self.failure

        monkeypatch.setattr(atomic_file._File, "write", full)
        return plain(self, runner)

    monkeypatch.setattr(checkpoint_hook.CheckpointHook, "save_now", save_now)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        killed_by(tmp_path, "before_train_iter", 12, signal.SIGTERM)
    assert f"resume=True goes on from {tmp_path / 'iter_10.pth'}" in str(caught.value)


def test_an_ignored_signal_stays_ignored(tmp_path):
    """As SIGINT is for what a script runs in its background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        killed_by(tmp_path, "before_train_iter", 5, signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "iter_20.pth").is_file()


def test_a_second_signal_does_not_wait(tmp_path):
    class Twice(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt, match="interrupted twice: nothing was saved"):
        Runner.from_cfg(toy_config(tmp_path, custom_hooks=[Twice()])).train()
    assert not list(tmp_path.glob("*.pth"))


def test_training_in_a_thread_leaves_the_signals_alone(tmp_path):
    failures = []

    def train():
        try:
            Runner.from_cfg(toy_config(tmp_path)).train()
        except BaseException as error:  # a thread has nobody to tell
            failures.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert not failures


def started(method):
    """A dataloader that has begun, and its worker process."""
    loader = torch.utils.data.DataLoader(
        range(20), num_workers=1, multiprocessing_context=method, worker_init_fn=WorkerStart(None)
    )
    batches = iter(loader)
    assert next(batches) == 0
    return batches, batches._workers[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_outlives_the_signal(number, method):
    """Else the training, waiting for its batch, could not finish the iteration."""
    batches, worker = started(method)
    stranger = [sys.executable, "-c", f"import os; os.kill({worker.pid}, {int(number)})"]
    subprocess.run(stranger, check=True)
    assert [int(batch) for batch in batches] == list(range(1, 20))


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_obeys_its_training(method):
    """torch, and Python at its end, send a SIGTERM to workers that hang."""
    _, worker = started(method)
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0


def launch(folder, *more):
    """The command in a process group of its own."""
    return subprocess.Popen(
        [*COMMAND, "--work-dir", str(folder), *more], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(path, process):
    """Until the run has written its first record."""
    for _ in range(1200):
        if path.is_file() and path.stat().st_size:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"no {path} in a minute")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_line_and_its_workers(tmp_path, number, status):
    """The whole process group gets the signal, worker processes included; nobody is left over."""
    process = launch(tmp_path, "train_dataloader.num_workers=2")
    wait_for(tmp_path / "metrics.jsonl", process)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert f"{number.name}: training stopped after iteration" in out + err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    stopped_at = max(int(path.stem.split("_")[1]) for path in tmp_path.glob("iter_*.pth"))
    assert 0 < stopped_at < ITERATIONS
    process = launch(tmp_path, "--resume")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert f"at iteration {stopped_at}" in out
    assert (tmp_path / f"iter_{ITERATIONS}.pth").is_file()
