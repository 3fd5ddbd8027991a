"""Torn, flipped and half-written files: found out, told, and the run goes on from the file before."""

# SPDX-License-Identifier: Apache-2.0

import os
import random

import pytest
import torch
from toys import toy_config

from segfast.errors import CheckpointError
from segfast.runner import Runner
from segfast.runner.checkpoint import load_checkpoint, save_checkpoint

CHECKPOINTS = {"default_hooks": {"checkpoint": {"interval": 5}, "visualization": None}}


def run(folder, **options):
    runner = Runner.from_cfg(toy_config(folder, **CHECKPOINTS), **options)
    runner.train()
    return runner


def same(a, b):
    """Equal, tensors and all."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    """Wherever it lies: the file is refused, or holds what was written (padding between records)."""
    path, rng = tmp_path / "a.pth", random.Random(0)
    state = {"state_dict": {"w": torch.randn(100), "b": torch.arange(7)}, "meta": {"iter": 3}}
    save_checkpoint(state, path)
    whole, refusals = path.read_bytes(), []
    for _ in range(400):
        torn = bytearray(whole)
        torn[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(torn)
        try:
            assert same(load_checkpoint(path), state)
        except CheckpointError as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert all("a.pth" in text and "\n" not in text for text in refusals)


def test_no_truncation_goes_unnoticed(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint({"state_dict": {"w": torch.randn(100)}}, path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"a\.pth cannot be read as a checkpoint"):
            load_checkpoint(path)


def test_a_record_that_would_unpack_to_gigabytes_is_refused(tmp_path):
    import zipfile

    path = tmp_path / "bomb.pth"
    save_checkpoint({"state_dict": {}}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb/data/0", bytes(50_000_000))
    assert path.stat().st_size < 200_000
    with pytest.raises(CheckpointError, match="compressed, or claim more bytes than it has"):
        load_checkpoint(path)


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_resume_falls_back_to_the_file_before(tmp_path, harm):
    whole = run(tmp_path / "whole")
    run(tmp_path / "again")
    last = tmp_path / "again/iter_20.pth"
    torn = bytearray(last.read_bytes())
    torn[len(torn) // 2] ^= 1
    last.write_bytes({"flip": bytes(torn), "cut": torn[:-500], "empty": b""}[harm])
    again = run(tmp_path / "again", resume=True)
    log = (tmp_path / "again/log.txt").read_text()
    assert "warning" in log
    assert "iter_20.pth cannot be read as a checkpoint" in log
    assert "resumed" in log
    assert "iter_15.pth at iteration 15" in log
    assert torch.equal(again.model.layer.weight, whole.model.layer.weight)
    assert load_checkpoint(last)["meta"]["iter"] == 20  # written again


def test_with_no_file_left_the_run_does_not_start_over_silently(tmp_path):
    run(tmp_path)
    for path in tmp_path.glob("iter_*.pth"):
        path.write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"none of iter_\d+.pth, iter_\d+.pth in .* can be read"
    ):
        run(tmp_path, resume=True)


def test_the_newest_file_counts_even_if_nothing_names_it(tmp_path):
    """A kill between the rename and the pointer's."""
    run(tmp_path)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_15.pth"))
    assert run(tmp_path, resume=True).resumed_from == (tmp_path / "iter_20.pth").resolve()
    (tmp_path / "last_checkpoint").write_bytes(b"\xff\x00 torn")
    assert run(tmp_path, resume=True).resumed_from == (tmp_path / "iter_20.pth").resolve()


def test_a_moved_folder_is_resumed(tmp_path):
    run(tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "behind")
    assert run(tmp_path / "behind", resume=True).iter == 20


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    left = tmp_path / ".iter_5.pth.unfinished-abc"
    left.write_bytes(b"half")
    (tmp_path / ".mine").write_bytes(b"not ours")
    run(tmp_path)
    assert not left.exists()
    assert (tmp_path / ".mine").exists()


class Bomb:
    """Unpickled, it creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_malicious_pickle_does_nothing(tmp_path):
    mine, target = tmp_path / "evil.pth", tmp_path / "pwned"
    for zipped in (True, False):
        torch.save(
            {"state_dict": {}, "x": Bomb(target)}, mine, _use_new_zipfile_serialization=zipped
        )
        with pytest.raises(CheckpointError, match=r"evil\.pth cannot be read"):
            run(tmp_path / "run", load_from=mine)
        assert not target.exists()
    torch.load(mine, weights_only=False)
    assert target.exists()  # it was armed
