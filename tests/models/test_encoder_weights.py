"""encoder_weights: prefixes and classifiers are handled, everything that does not fit is explained."""

# SPDX-License-Identifier: Apache-2.0
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segfast.errors import CheckpointError
from segfast.models import Segmentor

SHARED = Path(__file__).parents[3] / "shared"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)


def weights(prefix="", **extra):
    tensors = {
        f"{prefix}{k}": torch.randn_like(v) if v.dtype.is_floating_point else v
        for k, v in Net().encoder.state_dict().items()
    }
    return {**tensors, **extra}


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "module.encoder.", "backbone."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_arrive(tmp_path, prefix, wrapped):
    state = weights(prefix)
    state["classifier.weight"] = torch.ones(2)
    if prefix.endswith("encoder."):
        state[prefix.replace("encoder.", "decoder.") + "conv.weight"] = torch.ones(2)
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "w.pth")
    model = Segmentor(Net(), encoder_weights=tmp_path / "w.pth")
    for key, value in model.net.encoder.state_dict().items():
        assert torch.equal(value, state[prefix + key]), key


def test_safetensors_and_old_batch_norm(tmp_path):
    state = weights()
    del state["1.num_batches_tracked"]
    save_file(state, tmp_path / "w.safetensors")
    model = Segmentor(Net(), encoder_weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(model.net.encoder[0].weight, state["0.weight"])


def test_what_does_not_fit_is_one_line(tmp_path):
    def fails(state, text, net=None):
        path = tmp_path / "w.pth"
        if isinstance(state, bytes):
            path.write_bytes(state)
        else:
            torch.save(state, path)
        with pytest.raises(CheckpointError, match=text) as caught:
            Segmentor(Net() if net is None else net, encoder_weights=path)
        assert "\n" not in str(caught.value)
        assert "w.pth" in str(caught.value)

    short = weights()
    del short["0.weight"]
    fails(short, r"does not fit Net\.encoder: 1 of 7 weights are missing \(0\.weight")
    fails(weights(other=torch.ones(1)), r"1 are unknown to it \(other")
    wide = weights() | {"0.weight": torch.ones(4, 1, 3, 3)}
    fails(wide, r"0\.weight is \(4, 1, 3, 3\) in the file, \(4, 3, 3, 3\) in the network")
    fails(weights(), "Sequential has no submodule encoder", nn.Sequential())
    fails(
        b"not a checkpoint",
        r"cannot be read .* no file that torch\.save wrote, it begins with b'not a ch'",
    )
    fails({"epoch": 3}, "holds no state dict")
    fails(
        {"model": nn.ReLU()},
        "reading it would call torch.nn.modules.activation.ReLU, and could run .*ask who made it",
    )
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such file"):
        Segmentor(Net(), encoder_weights="nowhere.pth")


@pytest.mark.shared_data
def test_torchvision_weights_into_smp(tmp_path):
    smp = pytest.importorskip("segmentation_models_pytorch")
    path = SHARED / "weights" / "mobilenet_v2-b0353104.pth"
    if not path.exists():
        pytest.skip("the shared weights are absent")
    net = smp.FPN("mobilenet_v2", encoder_weights=None, classes=11)
    model = Segmentor(net, num_classes=11, encoder_weights=path)
    stored = torch.load(path, weights_only=True)
    assert torch.equal(
        model.net.encoder.state_dict()["features.3.conv.0.0.weight"],
        stored["features.3.conv.0.0.weight"],
    )


def test_weights_are_read_as_checkpoints_are(tmp_path, monkeypatch):
    """MMEngine's logs are left out, and a damaged record is found."""
    name = "mmengine.logging.history_buffer"
    module = types.ModuleType(name)
    module.HistoryBuffer = type("HistoryBuffer", (), {"__module__": name})
    for part in ("mmengine", "mmengine.logging", name):
        monkeypatch.setitem(sys.modules, part, module if part == name else types.ModuleType(part))
    path = tmp_path / "w.pth"
    torch.save({"state_dict": weights(), "message_hub": {"log": module.HistoryBuffer()}}, path)
    for part in ("mmengine", "mmengine.logging", name):
        monkeypatch.delitem(sys.modules, part)
    Segmentor(Net(), encoder_weights=path)
    torch.save(weights(), path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda record: record.file_size)
    data[largest.header_offset + 400] ^= 0x40
    path.write_bytes(bytes(data))
    with pytest.raises(
        CheckpointError, match=r"encoder_weights .*w\.pth cannot be read .*checksum"
    ):
        Segmentor(Net(), encoder_weights=path)
