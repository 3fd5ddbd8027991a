"""Test-time augmentation: versions go through the model one by one, probabilities are averaged."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from segmentor_parts import labelled
from torch import nn

from segfast.errors import UserError
from segfast.models import BaseTTAModel, SegTTAModel
from segfast.registry import MODELS
from segfast.structures import PixelData, SegDataSample

SEGMENTOR = {
    "type": "EncoderDecoder",
    "backbone": {"type": "TinyBackbone"},
    "decode_head": {"type": "TinyHead"},
}


class Joined(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return ["+".join(str(p) for p in preds) for preds in data_samples_list]


class Echo(nn.Module):
    def test_step(self, data):
        return data["inputs"] if isinstance(data, dict) else data[0]


def test_versions_are_split_and_merged_per_image():
    model = Joined(Echo())
    assert model.test_step({"inputs": [["a1", "b1"], ["a2", "b2"]], "x": [0, 0]}) == [
        "a1+a2",
        "b1+b2",
    ]
    assert model.test_step(([["a1", "b1"], ["a2", "b2"]], [0, 0])) == ["a1+a2", "b1+b2"]
    with pytest.raises(TypeError, match="dict, tuple or list"):
        model.test_step("abc")
    with pytest.raises(NotImplementedError):
        model(torch.zeros(1))


def test_the_model_is_a_module_or_a_config():
    model = Joined(SEGMENTOR, data_preprocessor={"type": "SegDataPreProcessor", "size_divisor": 8})
    assert model.module.data_preprocessor.size_divisor == 8
    with pytest.raises(TypeError, match="module should be"):
        Joined(3)
    with pytest.raises(AssertionError, match="Identity has no test_step"):
        Joined(nn.Identity())


def versions(num_classes):
    """Twelve sizes, half of them flipped, of one image 10 x 10."""
    inputs, samples = [], []
    for i in range(12):
        flip = {"flip": i % 2 == 0, "flip_direction": "vertical" if i % 3 else "horizontal"}
        size = (10 + i, 10 + i)
        (sample,) = labelled((10, 10), 1, num_classes, **flip)
        sample.set_metainfo({"img_shape": size, "img_path": f"version_{i}.png"})
        inputs.append(torch.randn(1, 3, *size))
        samples.append([sample])
    return {"inputs": inputs, "data_samples": samples}


def test_probabilities_are_averaged():
    model = MODELS.build({"type": "SegTTAModel", "module": SEGMENTOR}).eval()
    data = versions(5)
    with torch.no_grad():
        (result,) = model.test_step(data)
        singles = [
            model.module.test_step({"inputs": image, "data_samples": sample})[0]
            for image, sample in zip(data["inputs"], data["data_samples"], strict=True)
        ]
    mean = torch.stack([s.seg_logits.data.softmax(0) for s in singles]).mean(0)
    assert torch.equal(result.pred_sem_seg.data, mean.argmax(0, keepdim=True))
    assert result.pred_sem_seg.shape == (10, 10)
    assert result.img_path == "version_0.png"
    assert torch.equal(result.gt_sem_seg.data, data["data_samples"][0][0].gt_sem_seg.data)


def test_one_channel_is_a_probability_already():
    head = {"type": "TinyHead", "num_classes": 2, "out_channels": 1, "threshold": 0.4}
    model = SegTTAModel({**SEGMENTOR, "decode_head": head}).eval()
    data = versions(2)
    with torch.no_grad():
        (result,) = model.test_step(data)
        singles = [
            model.module.test_step({"inputs": image, "data_samples": sample})[0].seg_logits.data
            for image, sample in zip(data["inputs"], data["data_samples"], strict=True)
        ]
    want = torch.stack(singles).mean(0) > 0.4
    assert torch.equal(result.pred_sem_seg.data, want.long())


def merged(model, *logits):
    data = [PixelData(data=torch.tensor(values).view(-1, 1, 1)) for values in logits]
    samples = [SegDataSample(seg_logits=pixels) for pixels in data]
    (result,) = model.merge_preds([samples])
    assert result is samples[-1]
    assert "img_path" not in result
    return result.pred_sem_seg.data.tolist()


def test_golden():
    # The mean logits are (3.3, 2), but two of three versions give class 1 a probability of 0.95.
    assert merged(SegTTAModel(SEGMENTOR), [10.0, 0.0], [0.0, 3.0], [0.0, 3.0]) == [[[1]]]
    head = {"type": "TinyHead", "num_classes": 2, "out_channels": 1, "threshold": 0.4}
    model = SegTTAModel({**SEGMENTOR, "decode_head": head})
    assert merged(model, [0.5], [0.2]) == [[[0]]]
    assert merged(model, [0.5], [0.4]) == [[[1]]]


def test_samples_without_logits_are_explained():
    model = SegTTAModel({**SEGMENTOR, "test_cfg": {"keep_logits": False}})
    with pytest.raises(UserError, match="keep_logits to None or True"):
        model.test_step(versions(5))
