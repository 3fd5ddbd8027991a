"""A disk that is full or read-only: the run ends with one line that names the last good checkpoint."""

# SPDX-License-Identifier: Apache-2.0

import errno
import subprocess
import sys

import pytest
import torch
from tiny_data import folder_config, make_folder
from toys import ToyModel, toy_config

import segfast
from segfast.cli import FAILED, main
from segfast.errors import ConfigError, OutputError
from segfast.runner import Runner, atomic_file
from segfast.runner.checkpoint import load_checkpoint, save_checkpoint


class Heavy(ToyModel):
    """Half a megabyte of weights that do nothing."""

    def __init__(self):
        super().__init__()
        self.register_buffer("ballast", torch.zeros(128, 1024))


def config(folder):
    hooks = {"checkpoint": {"interval": 5, "save_best": None}, "visualization": None}
    return toy_config(folder, model={"type": Heavy}, default_hooks=hooks)


def mount(folder, options):
    """A tmpfs, where that is allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    return folder


@pytest.fixture
def small_disk(tmp_path):
    folder = mount(tmp_path / "disk", "size=1m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only_disk(tmp_path):
    folder = mount(tmp_path / "disk", "ro,size=1m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def assert_unharmed(folder, good):
    """One whole checkpoint, nothing half-written."""
    assert load_checkpoint(good)["meta"]["iter"] == 5
    assert not list(folder.glob("*unfinished*")) + list(folder.glob(".*unfinished*"))


def test_a_full_disk(small_disk, tmp_path):
    with pytest.raises(OutputError) as caught:
        Runner.from_cfg(config(small_disk)).train()
    good = small_disk / "iter_5.pth"
    text = str(caught.value)
    assert text.startswith(f"cannot write {small_disk}/iter_10.pth: No space left on device: ")
    assert text.endswith(f"training stopped after iteration 9; resume=True goes on from {good}")
    assert_unharmed(small_disk, good)
    moved = tmp_path / "larger"
    subprocess.run(["cp", "-r", str(small_disk), str(moved)], check=True)
    again = Runner.from_cfg(config(moved), resume=True).train()
    whole = Runner.from_cfg(config(tmp_path / "whole")).train()
    assert torch.equal(again.layer.weight, whole.layer.weight)


def test_the_command_line_on_a_full_disk(small_disk, capsys):
    arguments = ["train", "train_cfg.max_iters=2", "train_cfg.val_interval=1", "--device", "cpu"]
    assert main([*arguments, "--work-dir", str(small_disk)]) == FAILED
    errors = capsys.readouterr().err
    assert "segfast: error: cannot write" in errors
    assert "No space left on device" in errors
    assert "no state was saved" in errors
    assert "Traceback" not in errors


def test_a_read_only_folder(read_only_disk):
    with pytest.raises(ConfigError, match="work_dir: cannot create"):
        Runner.from_cfg(config(read_only_disk / "run"))
    with pytest.raises(OutputError, match=r"cannot write .*log.txt: Read-only file system"):
        Runner.from_cfg(config(read_only_disk)).train()


def test_writes_that_fail_anywhere(tmp_path, monkeypatch):
    """The same without a disk: from some byte on nothing can be written."""
    path = tmp_path / "a.pth"
    save_checkpoint({"meta": 1}, path)
    before, plain = path.read_bytes(), atomic_file._File.write
    for room in range(0, 300_000, 30_000):
        left = [room]

        def write(self, data, left=left):
            left[0] -= len(data)
            if left[0] < 0:
                self.failure = OSError(errno.ENOSPC, "No space left on device")
                raise self.failure
            return plain(self, data)

        monkeypatch.setattr(atomic_file._File, "write", write)
        with pytest.raises(OutputError, match=r"cannot write .*a\.pth: No space left on device"):
            save_checkpoint({"state_dict": {"w": torch.zeros(100_000)}}, path)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_nobody_listens_any_more(tmp_path):
    """The screen is a full disk, or a closed pipe: the files have it all, training goes on."""
    command = [
        sys.executable, "-P", "-m", "segfast", "train", "train_cfg.max_iters=4", "train_cfg.val_interval=2",
        "default_hooks.logger.interval=1", "--device", "cpu", "--work-dir", str(tmp_path),
    ]  # fmt: skip
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=full, timeout=300, check=False)
    assert (tmp_path / "iter_4.pth").is_file()
    assert "Iter(val)" in (tmp_path / "log.txt").read_text()
    assert done.returncode in (0, 120)  # Python's own: it could not flush at the end


def test_pictures_on_a_full_disk(tmp_path):
    """They are drawn by default; the last good checkpoint is named, too."""
    make_folder(tmp_path / "data")
    config = folder_config(tmp_path / "data")
    config["train_cfg"] = {"max_iters": 6, "val_interval": 3}
    config["default_hooks"] = {"checkpoint": {"interval": 2}}
    (tmp_path / "run/pictures").mkdir(parents=True)
    (tmp_path / "run/pictures/val_iter_3.png").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"val_iter_3\.png: No space left on device") as caught:
        segfast.train(config, work_dir=tmp_path / "run")
    assert f"resume=True goes on from {tmp_path / 'run/iter_2.pth'}" in str(caught.value)
