"""Files that somebody sent run nothing: pickles, configs inside checkpoints, weights of every kind."""

# SPDX-License-Identifier: Apache-2.0

import os
import pickle
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from tiny_data import folder_config, make_folder

import segfast
from segfast.cli import main
from segfast.errors import CheckpointError
from segfast.runner.checkpoint import load_checkpoint
from segfast.trusted_types import checked


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run: its folder of data, its config and its checkpoint."""
    root = tmp_path_factory.mktemp("run")
    make_folder(root / "data")
    config = {**folder_config(root / "data"), "train_cfg": {"max_iters": 2}, "quiet": True}
    result = segfast.train(config, work_dir=root / "work")
    (root / "config.yaml").write_text(segfast.config.dump_config(config))
    return root, config, result.checkpoint


KINDS = ("zip", "old", "plain", "inside a state dict", "beside the weights")


def malicious(path, kind, marker, state):
    """A file that runs a command when it is unpickled."""
    evil = Evil(marker)
    if kind == "zip":
        torch.save(evil, path)
    elif kind == "old":
        torch.save({"state_dict": evil}, path, _use_new_zipfile_serialization=False)
    elif kind == "plain":
        path.write_bytes(pickle.dumps(evil))
    elif kind == "inside a state dict":
        torch.save({"state_dict": {**state, "evil": evil}, "meta": {}}, path)
    else:
        torch.save({"state_dict": state, "meta": {"cfg": "model: {}"}, "optimizer": evil}, path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_malicious_pickle_runs_nothing_anywhere(trained, tmp_path, kind, capsys):
    root, config, checkpoint = trained
    marker, path = tmp_path / "executed", tmp_path / "evil.pth"
    malicious(path, kind, marker, load_checkpoint(checkpoint)["state_dict"])
    image = str(root / "data/images/val/0.png")
    file = str(root / "config.yaml")
    for arguments in (
        ["predict", str(path), image, "--out", str(tmp_path / "out")],
        ["predict", str(path), image, "--out", str(tmp_path / "out"), "--config", file],
        ["test", file, str(path), "--work-dir", str(tmp_path / "test")],
        ["train", file, f"load_from={path}", "--work-dir", str(tmp_path / "train")],
        ["train", file, f"load_from={path}", "--resume", "--work-dir", str(tmp_path / "train")],
    ):
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("segfast: error: "), error
        assert "evil.pth" in error
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        segfast.train({**config, "model": {**config["model"], "encoder_weights": str(path)}})
    (tmp_path / "resumed").mkdir()
    path.rename(tmp_path / "resumed" / "iter_1.pth")
    with pytest.raises(CheckpointError, match="none of iter_1"):
        segfast.train(config, work_dir=tmp_path / "resumed", resume=True)
    assert not marker.exists()


def test_the_refusal_names_the_opt_in_and_the_opt_in_works(trained, tmp_path, capsys):
    root, config, checkpoint = trained
    marker, path = tmp_path / "executed", tmp_path / "theirs.pth"
    state = load_checkpoint(checkpoint)
    torch.save({**state, "extra": Evil(marker)}, path)
    call = [
        "predict",
        str(path),
        str(root / "data/images/val/0.png"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(call) == 2
    error = capsys.readouterr().err
    assert "reading it would call posix.system, and could run anything" in error
    assert "--trust-checkpoint, or trust_checkpoint=True" in error
    assert main([*call, "--trust-checkpoint"]) == 0
    assert marker.exists()  # that is what trust means
    with pytest.raises(segfast.errors.ConfigError, match="trust_checkpoint: unknown key"):
        segfast.train({**config, "trust_checkpoint": True})
    started = segfast.train(
        {**config, "train_cfg": {"max_iters": 1}},
        load_from=path,
        work_dir=tmp_path / "w",
        trust_checkpoint=True,
    )
    assert "trust_checkpoint" not in (tmp_path / "w/config.yaml").read_text()
    assert started.checkpoint


def with_config(trained, path, change):
    """The checkpoint with another config inside."""
    state = load_checkpoint(trained[2])
    config = yaml.safe_load(state["meta"]["cfg"])
    change(config)
    state["meta"]["cfg"] = yaml.safe_dump(config)
    torch.save(state, path)
    return path


def test_the_config_inside_a_checkpoint_calls_networks_only(trained, tmp_path, monkeypatch):
    root, _, _ = trained
    marker = tmp_path / "executed"
    (tmp_path / "evil_module.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\ndef net(**_): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    image = root / "data/images/val/0.png"
    step = {"type": "evil_module.net"}
    calls = {
        "os.system": lambda c: c["model"].update(
            net={"type": "os.system", "command": f"touch {marker}"}
        ),
        "evil_module.net": lambda c: c["model"].update(net=step),
        "torch.nn.functional.warnings.warn": lambda c: c["model"].update(
            net={"type": "torch.nn.functional.warnings.warn"}
        ),
        "segfast.train": lambda c: c["model"].update(
            loss=[{"type": "segfast.train", "cfg": str(tmp_path / "evil_module.py")}]
        ),
        "segfast.runner.log.RunLog": lambda c: c["model"].update(
            net={"type": "segfast.runner.log.RunLog", "work_dir": str(marker)}
        ),
        "torch.hub.load": lambda c: c.update(model={"type": "torch.hub.load"}),
        "evil_module.x": lambda c: c["val_dataloader"]["dataset"].update(
            pipeline=[{"type": "evil_module.x"}]
        ),
    }
    for name, change in calls.items():
        path = with_config(trained, tmp_path / "c.pth", change)
        with pytest.raises(
            (CheckpointError, segfast.errors.ConfigError), match=r"would call|standard library"
        ) as caught:
            segfast.predict(path, image)
        assert name in str(caught.value)
    assert not marker.exists()
    assert "evil_module" not in sys.modules


def test_networks_of_the_caller_and_of_known_packages_are_built(trained, tmp_path):
    root, config, _ = trained
    for kind in ("torch.nn.Conv2d", "test_untrusted_files_net.Net"):
        module = type(sys)("test_untrusted_files_net")
        module.Net = type("Net", (torch.nn.Conv2d,), {})
        sys.modules[module.__name__] = module
        try:
            net = {**config["model"]["net"], "type": kind}
            path = with_config(
                trained, tmp_path / "c.pth", lambda c, net=net: c["model"].update(net=net)
            )
            assert segfast.predict(path, root / "data/images/val/0.png")[
                0
            ].pred_sem_seg.data.shape == (1, 24, 32)
        finally:
            del sys.modules[module.__name__]


def test_no_further_file_is_read_or_fetched():
    tree = {
        "type": "timm.create_model",
        "model_name": "x",
        "checkpoint_path": "/evil.pth",
        "pretrained": True,
    }
    pytest.importorskip("timm")
    assert checked([tree], "c.pth") == [{**tree, "checkpoint_path": "", "pretrained": False}]


@pytest.mark.parametrize("text", ["model = dict(type='A')", "a: &a [*a]", "[1]", "model: 3", 7, ""])
def test_configs_inside_that_are_none_of_ours(trained, tmp_path, text):
    root, _, checkpoint = trained
    state = load_checkpoint(checkpoint)
    state["meta"]["cfg"] = text
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"c\.pth.*--config CONFIG") as caught:
        segfast.predict(tmp_path / "c.pth", root / "data/images/val/0.png")
    assert "\n" not in str(caught.value)
    (predicted,) = segfast.predict(
        tmp_path / "c.pth", root / "data/images/val/0.png", config=root / "config.yaml"
    )
    assert torch.equal(
        predicted.pred_sem_seg.data,
        segfast.predict(checkpoint, root / "data/images/val/0.png")[0].pred_sem_seg.data,
    )


def test_safetensors(trained, tmp_path, capsys):
    root, config, checkpoint = trained
    weights = load_checkpoint(checkpoint)["state_dict"]
    path = tmp_path / "w.safetensors"
    save_file(weights, path)
    image = root / "data/images/val/0.png"
    (mine,) = segfast.predict(path, image, config=config)
    (theirs,) = segfast.predict(checkpoint, image)
    assert torch.equal(mine.pred_sem_seg.data, theirs.pred_sem_seg.data)
    with pytest.raises(CheckpointError, match=r"w\.safetensors carries no config"):
        segfast.predict(path, image)
    assert (
        main(
            [
                "predict",
                str(path),
                str(image),
                "--config",
                str(root / "config.yaml"),
                "--out",
                str(tmp_path / "o"),
            ]
        )
        == 0
    )
    assert np.asarray(Image.open(tmp_path / "o/masks/0.png")).shape == (24, 32)
    started = segfast.train(
        {**config, "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.0}}},
        load_from=path,
        work_dir=tmp_path / "w",
    )
    for key, value in started.model.state_dict().items():
        assert torch.equal(value, weights[key])
    assert (
        main(["test", str(root / "config.yaml"), str(path), "--work-dir", str(tmp_path / "t")]) == 0
    )
    whole = path.read_bytes()
    for part in (b"", whole[:20], whole[:-8]):
        path.write_bytes(part)
        with pytest.raises(CheckpointError, match=r"w\.safetensors cannot be read") as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["text", "picture", "empty", "script", "legacy"])
def test_no_advice_to_unpickle_what_is_no_checkpoint(tmp_path, kind, capsys):
    path = tmp_path / "x.pth"
    if kind == "text":
        path.write_text("hello\n" * 100)
    elif kind == "picture":
        Image.new("RGB", (8, 8)).save(path, "JPEG")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "script":
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    else:
        path.write_bytes(b"\x80\x02garbage")
    assert main(["predict", str(path), str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("segfast: error: ")
    assert "x.pth cannot be read as a checkpoint" in error
    assert len(error) < 400
    assert "weights_only" not in error
    assert "Re-running" not in error
