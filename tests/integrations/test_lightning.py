"""The LightningModule under the real Trainer."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

pytest.importorskip("lightning.pytorch")

import lightning.pytorch as lightning

from segfast.integrations.lightning import SegmentationModule

CLASSES = 3


class Scenes(torch.utils.data.Dataset):
    """uint8 images whose class is their brightness."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        labels = torch.randint(0, CLASSES, (4, 4), generator=generator).repeat_interleave(8, 0)
        labels = labels.repeat_interleave(8, 1).to(torch.uint8)
        images = (labels * 100).expand(3, -1, -1)
        labels = labels.clone()
        labels[0] = 255
        return images, labels


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, CLASSES, 1))


def loader(**options):
    return torch.utils.data.DataLoader(Scenes(), batch_size=4, **options)


def trainer(tmp_path, **options):
    return lightning.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", devices=1, enable_progress_bar=False,
        enable_model_summary=False, logger=False, **options,
    )  # fmt: skip


def test_learns_logs_and_predicts(tmp_path):
    module = SegmentationModule(network(), CLASSES, mean=[100.0] * 3, std=[80.0] * 3, lr=0.05)
    run = trainer(tmp_path, max_epochs=15)
    run.fit(module, loader(shuffle=True), loader())
    assert {"train_loss", "train_acc", "val_loss", "val_iou"} <= set(run.callback_metrics)
    val_iou = run.callback_metrics["val_iou"].item()
    assert val_iou > 0.95
    predictions = run.predict(module, loader())
    assert predictions[0].shape == (4, 32, 32)
    assert predictions[0].dtype == torch.uint8
    labels = torch.stack([Scenes()[i][1] for i in range(4)])
    assert (predictions[0] == labels)[:, 1:].float().mean() > 0.95
    checkpoint = tmp_path / "last.ckpt"
    run.save_checkpoint(checkpoint)
    again = SegmentationModule.load_from_checkpoint(checkpoint, net=network(), weights_only=True)
    assert again.hparams.num_classes == CLASSES
    scores = trainer(tmp_path).validate(again, loader(), verbose=False)[0]
    assert scores["val_iou"] == pytest.approx(val_iou)


def test_one_step_is_the_plain_one(tmp_path):
    """The gradient step equals interpolate, cross_entropy and AdamW by hand."""
    module = SegmentationModule(network(), CLASSES, mean=[100.0] * 3, std=[80.0] * 3, lr=0.01)
    by_hand = network()
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(module, loader())
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.01)
    images = torch.stack([Scenes()[i][0] for i in range(4)])
    labels = torch.stack([Scenes()[i][1] for i in range(4)]).long()
    logits = nn.functional.interpolate(by_hand((images - 100.0) / 80.0), (32, 32), mode="bilinear")
    nn.functional.cross_entropy(logits, labels, ignore_index=255).backward()
    optimizer.step()
    for ours, theirs in zip(module.net.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_float_images_pass_as_they_are(tmp_path):
    module = SegmentationModule(network(), CLASSES)
    batch = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    assert module.on_after_batch_transfer(batch, 0) is batch
    assert module.predict_step(batch[0], 0).shape == (1, 8, 8)
