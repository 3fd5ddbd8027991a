"""What the config inside a checkpoint can make happen: networks, and one line for everything else."""

# SPDX-License-Identifier: Apache-2.0

import sys

import pytest
import test_untrusted_files
import torch
from test_untrusted_files import with_config

import segfast
from segfast.cli import main
from segfast.datasets import BaseTransform
from segfast.errors import CheckpointError
from segfast.inference import forget_pretrained
from segfast.registry import TRANSFORMS
from segfast.runner.checkpoint import load_checkpoint
from segfast.trusted_types import checked

trained = test_untrusted_files.trained  # a fixture


class Runs(BaseTransform):
    """A transform that builds whatever another key than `type` names."""

    def __init__(self, what):
        TRANSFORMS.build({"type": what})

    def transform(self, results):
        return results


@pytest.mark.parametrize(
    "step",
    [
        {"type": "RandomResize", "scale": [[1, 1], [2, 2]], "resize_type": "hub_stand_in.load"},
        {"type": "RandomResize", "scale": [[1, 1], [2, 2]], "resize_type": "torch.hub.load"},
        {"type": "Runs", "what": "torch.hub.load"},
        {"type": "Runs", "what": "hub_stand_in.load"},
    ],
)
@pytest.mark.parametrize("where", ["val_dataloader", "test_dataloader"])
def test_nothing_is_called_by_another_key_than_type(trained, tmp_path, monkeypatch, step, where):
    marker = tmp_path / "executed"
    text = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    (tmp_path / "hub_stand_in.py").write_text(
        text + "def load(**_): return lambda results: results\n"
    )
    (tmp_path / "hubconf.py").write_text(text + "def net(**_): return lambda results: results\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TRANSFORMS._entries, "Runs", Runs)
    if "resize_type" in step and step["resize_type"] == "torch.hub.load":
        step = {**step, "repo_or_dir": str(tmp_path), "model": "net", "source": "local"}
    pipeline = [{"type": "LoadImageFromFile"}, step, {"type": "PackSegInputs"}]

    def change(config):
        config[where] = {"dataset": {"pipeline": pipeline}}

    path = with_config(trained, tmp_path / "c.pth", change)
    with pytest.raises(CheckpointError, match=r"would call (torch\.hub|hub_stand_in)\.load"):
        segfast.predict(path, trained[0] / "data/images/val/0.png")
    assert not marker.exists()
    assert "hub_stand_in" not in sys.modules


def test_types_in_parts_that_are_not_built_do_not_matter(trained, tmp_path):
    path = with_config(
        trained,
        tmp_path / "c.pth",
        lambda c: c.update(custom_hooks=[{"type": "no_such_module.Hook"}]),
    )
    assert segfast.predict(path, trained[0] / "data/images/val/0.png")


@pytest.fixture
def networks(monkeypatch):
    """A stand-in for packages that fetch weights by default."""
    for name in ("segmentation_models_pytorch", "timm"):
        module = type(sys)(name)

        class Unet(torch.nn.Conv2d):
            def __init__(self, encoder_name="resnet34", encoder_weights="imagenet", classes=1):
                assert encoder_weights is None, "fetches"
                super().__init__(3, classes, 1)

        def create_model(model_name, pretrained=False, checkpoint_path="", **kwargs):
            raise AssertionError("fetches")

        module.Unet, module.create_model = Unet, create_model
        monkeypatch.setitem(sys.modules, name, module)


def test_defaults_that_would_fetch_weights(trained, tmp_path, networks):
    tree = {"type": "segmentation_models_pytorch.Unet", "classes": 2}
    assert checked(tree, "c.pth") == {**tree, "encoder_weights": None}
    tree = {"type": "timm.create_model", "model_name": "x"}
    assert checked(tree, "c.pth") == {**tree, "pretrained": False, "checkpoint_path": ""}
    image = trained[0] / "data/images/val/0.png"
    net = {"type": "segmentation_models_pytorch.Unet", "classes": 2}
    path = with_config(trained, tmp_path / "c.pth", lambda c: c["model"].update(net=net))
    assert segfast.predict(path, image)
    for name in ("hf-hub:evil/x", "hf_hub:evil/x", "local-dir:/evil", "tu-hf-hub:evil/x"):
        for kind, key in (
            ("timm.create_model", "model_name"),
            ("segmentation_models_pytorch.Unet", "encoder_name"),
        ):
            net = {"type": kind, key: name}
            path = with_config(
                trained, tmp_path / "c.pth", lambda c, net=net: c["model"].update(net=net)
            )
            with pytest.raises(CheckpointError, match="would fetch or read other files"):
                segfast.predict(path, image)


def test_pretrained_parts_are_forgotten_at_any_depth():
    start = {"type": "Pretrained", "checkpoint": "c.pth"}
    config = {
        "model": {
            "type": "A",
            "encoder_weights": "x.pth",
            "backbone": {"type": "B", "pretrained": "b.pth", "init_cfg": start},
            "heads": [{"type": "a.C", "pretrained": True, "init_cfg": {"type": "Normal"}}],
            "net": {"type": "a.D", "encoder_weights": "imagenet"},
        }
    }
    forget_pretrained(config)
    assert config["model"] == {
        "type": "A",
        "backbone": {"type": "B"},
        "heads": [{"type": "a.C", "pretrained": False, "init_cfg": {"type": "Normal"}}],
        "net": {"type": "a.D", "encoder_weights": None},
    }


WRONG = [5, "abc", [1], {"a": 1}, None, -1]
PLACES = [
    ["val_dataloader"], ["val_dataloader", "dataset"], ["val_dataloader", "dataset", "pipeline"],
    ["model", "net", "in_channels"], ["model", "net", "out_channels"], ["model", "net"], ["model", "type"],
    ["model", "data_preprocessor"], ["model", "data_preprocessor", "mean"], ["model", "test_cfg"],
    ["model", "num_classes"], ["model", "loss"],
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_hostile_values_in_a_checkpoints_config_are_one_line(trained, tmp_path, place, capsys):
    image = str(trained[0] / "data/images/val/0.png")
    for value in WRONG:

        def change(config, value=value):
            node = config
            for key in place[:-1]:
                node = node[key]
            node[place[-1]] = value

        path = with_config(trained, tmp_path / "c.pth", change)
        status = main(["predict", str(path), image, "--out", str(tmp_path / "out")])
        error = capsys.readouterr().err
        assert status in (0, 2), (place, value, error)
        if status:
            assert error.startswith("segfast: error: "), (value, error)
            assert len(error.splitlines()) == 1, (value, error)
            assert "c.pth" in error, (value, error)


@pytest.mark.parametrize(
    "meta",
    [
        5, {"classes": 5, "palette": "abc"}, {"classes": ["a"], "palette": [[1, 2]]}, ["x"],
        {"classes": ["a", "b"], "palette": [[1, 2, 3000], [1, 2, 3]]}, {"classes": ["a", "b"], "palette": [[1, 2, 3]]},
    ],
)  # fmt: skip
def test_hostile_names_and_colours_are_one_line(trained, tmp_path, meta, capsys):
    state = load_checkpoint(trained[2])
    state["meta"]["dataset_meta"] = meta
    torch.save(state, tmp_path / "c.pth")
    image = str(trained[0] / "data/images/val/0.png")
    for more in ([], ["--config", str(trained[0] / "config.yaml")]):
        call = ["predict", str(tmp_path / "c.pth"), image, "--out", str(tmp_path / "out"), *more]
        assert main(call) == 2
        error = capsys.readouterr().err
        assert error.startswith("segfast: error: ")
        assert len(error.splitlines()) == 1
        assert "c.pth: what it says about its classes is wrong" in error


@pytest.mark.parametrize(
    "name",
    ["torch.fx.GraphModule", "torch.distributed.nn.RemoteModule", "segfast.bench.command.run"],
)
def test_networks_live_in_few_places(name):
    with pytest.raises(CheckpointError, match="would call"):
        checked({"type": name}, "c.pth")


def test_no_type_runs_a_program(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["segfast", "--help"])
    path = with_config(
        trained,
        tmp_path / "c.pth",
        lambda c: c["model"].update(net={"type": "segfast.__main__.Net"}),
    )
    with pytest.raises(CheckpointError, match=r"would call segfast\.__main__\.Net"):
        segfast.predict(path, trained[0] / "data/images/val/0.png")
    with pytest.raises(CheckpointError, match="__main__ is no part of a path"):
        checked({"type": "segfast.models.__main__.Net"}, "c.pth")
