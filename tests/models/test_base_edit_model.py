"""BaseEditModel: modes, samples for the evaluator, construction."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from torch import nn

from segfast.errors import ConfigError
from segfast.evaluation import PSNR, Evaluator
from segfast.models import BaseEditModel, DataPreprocessor, L1Loss
from segfast.registry import MODELS
from segfast.runner import OptimWrapper
from segfast.structures import DataSample


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, 1, 1)

    def forward(self, x, gain=1.0):
        return self.layer(x) * gain


def model(**options):
    loss = {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}
    return BaseEditModel(generator={"type": Conv}, pixel_loss=loss, **options)


def test_construction():
    made = MODELS.build({"type": "BaseEditModel", "generator": Conv(), "pixel_loss": nn.L1Loss()})
    assert isinstance(made.data_preprocessor, DataPreprocessor)
    assert isinstance(made.generator, Conv)
    assert isinstance(model().pixel_loss, L1Loss)
    with pytest.raises(ConfigError, match=r"^pixel_loss.type: unknown model 'L2Los'"):
        BaseEditModel(generator=Conv(), pixel_loss={"type": "L2Los"})


def test_training_lowers_the_loss():
    made = model()
    optim = OptimWrapper(torch.optim.Adam(made.generator.parameters(), lr=0.001))
    data = {
        "inputs": torch.rand(1, 3, 20, 20),
        "data_samples": [DataSample(gt_img=torch.rand(3, 20, 20))],
    }
    losses = [made.train_step(data, optim)["loss"].item() for _ in range(3)]
    assert losses[2] < losses[0]
    out = made.val_step(data)
    assert out[0].output.pred_img.shape == (3, 20, 20)
    assert made(torch.rand(1, 3, 20, 20), mode="tensor").shape == (1, 3, 20, 20)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_predictions_reach_the_evaluator_in_pixels(order):
    made = BaseEditModel(
        generator=nn.Identity(),
        pixel_loss=nn.L1Loss(),
        data_preprocessor=DataPreprocessor(output_channel_order=order, pad_size_divisor=8),
    )
    images = [torch.randint(0, 256, (3, 5, 6), dtype=torch.uint8) for _ in range(2)]
    truth = [(image // 2 * 2).flip(0) for image in images]
    data = {
        "inputs": [{"img": image} for image in images],
        "data_samples": [
            DataSample(gt_img=gt, metainfo={"gt_channel_order": "RGB", "gt_path": f"{i}.png"})
            for i, gt in enumerate(truth)
        ],
    }
    outputs = made.test_step(data)
    assert [sample.gt_path for sample in outputs] == ["0.png", "1.png"]
    for sample, image, gt in zip(outputs, images, truth, strict=True):
        for field in (sample.output.pred_img, sample.input):
            torch.testing.assert_close(field, image.float(), rtol=0, atol=1e-4)
        assert torch.equal(sample.gt_img, gt.flip(0))  # both are BGR by now
    evaluator = Evaluator(PSNR())
    evaluator.process(data_samples=outputs, data_batch=data)
    expected = [10 * torch.log10(255**2 / (i % 2).float().mean()) for i in images]
    assert evaluator.evaluate(2)["PSNR"] == pytest.approx(float(sum(expected) / 2), abs=1e-4)


def test_images_of_several_sizes_are_unpadded_one_by_one():
    made = BaseEditModel(generator=nn.Identity(), pixel_loss=nn.L1Loss())
    images = [torch.randint(0, 256, (3, *size)) for size in ((4, 6), (5, 3))]
    outputs = made.val_step({"inputs": images})
    for sample, image in zip(outputs, images, strict=True):
        torch.testing.assert_close(sample.output.pred_img, image.float(), rtol=0, atol=1e-4)


def test_modes_and_their_arguments():
    made = model()
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(made({"img": x}, gain=2.0), made(x, mode="tensor") * 2)
    assert made(x, mode="predict")[1].output.pred_img.shape == (3, 4, 4)
    for samples in (None, DataSample()):
        with pytest.raises(AssertionError, match="gt_img are needed"):
            made(x, samples, mode="loss")
    with pytest.raises(ValueError, match="got 'train'"):
        made(x, mode="train")


def test_a_preprocessor_written_for_mmagic_undoes_its_work():
    class Halving(nn.Module):
        def forward(self, data, training=False):
            samples = DataSample.stack(data["data_samples"])
            return {"inputs": torch.stack(data["inputs"]) / 2, "data_samples": samples}

        def destruct(self, outputs, data_samples=None, key="img"):
            return outputs * 2

    made = BaseEditModel(nn.Identity(), nn.L1Loss(), data_preprocessor=Halving())
    x = torch.rand(3, 4, 4)
    (sample,) = made.val_step({"inputs": [x], "data_samples": [DataSample(gt_img=x)]})
    assert torch.equal(sample.output.pred_img, x)
