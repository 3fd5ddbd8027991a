"""Whole runs of MMagic's flows on generated images: an image-to-image model, a GAN with two optimisers."""

# SPDX-License-Identifier: Apache-2.0

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segfast.datasets import PackInputs
from segfast.evaluation import BaseMetric
from segfast.runner import Runner


class Washed(torch.utils.data.Dataset):
    """RGB images with washed-out colours, and what they were."""

    def __init__(self, size=16, side=12):
        self.size, self.side, self.pack = size, side, PackInputs(keys=["img"])

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        generator = np.random.default_rng(int(index))
        truth = generator.integers(0, 256, (self.side, self.side, 3), dtype=np.uint8)
        washed = (truth[..., [1, 2, 0]] // 2 + 64).astype(np.uint8)
        names = {
            "gt_path": f"gt/{int(index)}.png",
            "gt_channel_order": "RGB",
            "img_channel_order": "RGB",
        }
        return self.pack({"img": washed, "gt": truth, **names})


def restoration(work_dir, **changes):
    return {
        "model": {
            "type": "BaseEditModel",
            "generator": {"type": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 3, "kernel_size": 1},
            "pixel_loss": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            "data_preprocessor": {
                "type": "DataPreprocessor", "mean": [127.5] * 3, "std": [127.5] * 3, "output_channel_order": "RGB",
            },
        },
        "work_dir": str(work_dir),
        "train_dataloader": {"batch_size": 4, "dataset": {"type": Washed}},
        "val_dataloader": {"batch_size": 2, "dataset": {"type": Washed, "size": 5}},
        "val_evaluator": [{"type": "PSNR"}, {"type": "PSNR", "prefix": "y", "convert_to": "Y"}],
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 150, "val_interval": 75},
        "optim_wrapper": {"optimizer": {"type": "Adam", "lr": 0.05}},
        "visualizer": {
            "type": "ConcatImageVisualizer", "vis_backends": [{"type": "LocalVisBackend"}], "fn_key": "gt_path",
            "img_keys": ["input", "pred_img", "gt_img"], "bgr2rgb": True,
        },
        "custom_hooks": [{"type": "BasicVisualizationHook", "interval": 2}],
        "default_hooks": {"checkpoint": {"interval": 1000, "rule": "greater"}, "visualization": None},
        "randomness": {"seed": 1},
        "device": "cpu",
        "quiet": True,
        **changes,
    }  # fmt: skip


def records(work_dir, mode):
    lines = (work_dir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["mode"] == mode]


def test_restoration_improves(tmp_path):
    runner = Runner.from_cfg(restoration(tmp_path))
    runner.train()
    first, last = records(tmp_path, "val")
    assert last["PSNR"] > first["PSNR"] > 5
    assert last["PSNR"] > 30
    assert last["y/PSNR"] > 30
    losses = [record["loss"] for record in records(tmp_path, "train")]
    assert losses[-1] < losses[0] / 5
    pictures = sorted((tmp_path / "vis_data" / "vis_image").glob("*.png"))
    assert [picture.stem.split("_")[0] for picture in pictures] == ["2", "2", "3", "3"]
    picture = np.asarray(Image.open(pictures[-1])).astype(int)
    assert picture.shape == (12, 36, 3)
    assert abs(picture[:, 12:24] - picture[:, 24:]).mean() < 10  # what was predicted is the truth
    np.testing.assert_array_equal(picture[:, :12], picture[:, 24:][..., [1, 2, 0]] // 2 + 64)


def test_a_hook_that_draws_wants_a_visualizer(tmp_path):
    runner = Runner.from_cfg(restoration(tmp_path, visualizer=None))
    with pytest.raises(ValueError, match="visualizer: missing, BasicVisualizationHook"):
        runner.train()


COLOURS = torch.tensor([[220, 40, 40], [40, 200, 60]], dtype=torch.uint8)


class Colours(torch.utils.data.Dataset):
    """2 x 2 images in one of two colours, with some noise, and which one it is."""

    metainfo: ClassVar = {"classes": ("red", "green")}

    def __init__(self, size=64):
        self.size, self.pack = size, PackInputs(keys=["img"])

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        label = int(index) % 2
        noise = np.random.default_rng(int(index)).integers(-15, 16, (2, 2, 3))
        image = (COLOURS[label].numpy() + noise).astype(np.uint8)
        packed = self.pack({"img": image, "gt_label": label})
        return {"inputs": {"img": packed["inputs"]}, "data_samples": packed["data_samples"]}


class Paint(nn.Module):
    def __init__(self, noise_size=2, num_classes=2):
        super().__init__()
        self.noise_size, self.num_classes = noise_size, num_classes
        self.colour = nn.Embedding(num_classes, 12)
        self.shade = nn.Linear(noise_size, 12)

    def forward(self, noise, label=None, return_noise=False):
        return torch.tanh(self.colour(label) + 0.1 * self.shade(noise)).view(-1, 3, 2, 2)


class Critic(nn.Module):
    def __init__(self, num_classes=2):
        super().__init__()
        self.num_classes = num_classes
        self.body = nn.Sequential(nn.Linear(12, 32), nn.LeakyReLU(0.2))
        self.head = nn.Linear(32, num_classes)

    def forward(self, images, label=None):
        return self.head(self.body(images.flatten(1))).gather(1, label[:, None])


class ColourError(BaseMetric):
    """How far generated colours are from those of their class, in steps of 255."""

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            label = int(sample["gt_label"]["label"])
            error = sample["fake_img"].mean((1, 2)) - COLOURS[label]
            self.results.append(error.abs().mean())

    def compute_metrics(self, results):
        return {"error": float(torch.stack(results).mean())}


def gan(work_dir, **changes):
    adam = {"type": "OptimWrapper", "optimizer": {"type": "Adam", "lr": 0.02, "betas": (0.5, 0.99)}}
    return {
        "model": {
            "type": "BaseConditionalGAN", "num_classes": 2, "noise_size": 2, "discriminator_steps": 2,
            "generator": {"type": Paint}, "discriminator": {"type": Critic},
            "loss_config": {"gan_loss": {"type": "GANLoss", "gan_type": "hinge"}},
            "data_preprocessor": {"type": "DataPreprocessor", "data_keys": None},
        },
        "work_dir": str(work_dir),
        "train_dataloader": {"batch_size": 8, "dataset": {"type": Colours}},
        "val_dataloader": {"batch_size": 4, "dataset": {"type": Colours, "size": 8}},
        "val_evaluator": {"type": ColourError},
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 240, "val_interval": 40},
        "optim_wrapper": {
            "constructor": "MultiOptimWrapperConstructor",
            "generator": adam,
            "discriminator": {**adam, "accumulative_counts": 1},
        },
        "default_hooks": {"checkpoint": {"interval": 41, "rule": "less", "max_keep_ckpts": -1}, "visualization": None},
        "randomness": {"seed": 5},
        "device": "cpu",
        "quiet": True,
        **changes,
    }  # fmt: skip


def test_gan_learns_its_colours(tmp_path):
    runner = Runner.from_cfg(gan(tmp_path))
    runner.train()
    errors = [record["error"] for record in records(tmp_path, "val")]
    assert errors[0] > 40
    assert errors[-1] < 25
    record = records(tmp_path, "train")[0]
    names = {"loss", "loss_disc_fake", "loss_disc_real", "loss_disc_fake_g"}
    assert names <= set(record)
    state = torch.load(tmp_path / "iter_41.pth", weights_only=True)
    assert set(state["optimizer"]) == {"generator", "discriminator"}


def test_gan_resumes_exactly(tmp_path):
    """The checkpoint lies between two turns of the generator, and each optimiser has schedulers of its own."""
    changes = {
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 6, "val_interval": 6},
        "default_hooks": {
            "checkpoint": {"interval": 3, "rule": "less", "max_keep_ckpts": -1},
            "visualization": None,
        },
        "param_scheduler": {
            "generator": {"type": "LinearLR", "by_epoch": False, "end": 6},
            "discriminator": [{"type": "PolyLR", "by_epoch": False, "end": 6}],
        },
    }
    whole = Runner.from_cfg(gan(tmp_path / "whole", **changes))
    whole.train()
    resumed = Runner.from_cfg(
        gan(
            tmp_path / "rest",
            **changes,
            load_from=str(tmp_path / "whole" / "iter_3.pth"),
            resume=True,
        )
    )
    resumed.train()
    assert resumed.iter == 6
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    rates = resumed.optim_wrapper.get_lr()
    assert rates == whole.optim_wrapper.get_lr()
    assert rates["generator.lr"] == [pytest.approx(0.02)]
    assert rates["discriminator.lr"] == [0]
