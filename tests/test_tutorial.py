"""A model in the style of MMEngine's tutorials: what is written for it runs here with other imports.

`classifier(kit)` is the user's code; `kit` holds what it imports, from segfast or from mmengine itself.
"""

# SPDX-License-Identifier: Apache-2.0

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import segfast

NUM_CLASSES = 3


NAMES = (
    "BaseModel",
    "BaseDataPreprocessor",
    "OptimWrapper",
    "BaseMetric",
    "Evaluator",
    "default_collate",
)


def kit_from(*modules):
    found = {name: getattr(m, name) for m in modules for name in NAMES if hasattr(m, name)}
    assert set(found) == set(NAMES)
    return SimpleNamespace(**found)


def segfast_kit():
    return kit_from(segfast)


def mmengine_kit():
    pytest.importorskip("mmengine")
    import mmengine.dataset
    import mmengine.evaluator
    import mmengine.model
    import mmengine.optim

    return kit_from(mmengine.dataset, mmengine.evaluator, mmengine.model, mmengine.optim)


def classifier(kit):
    """The user's model, preprocessor and metric."""

    class MMResNet50(kit.BaseModel):
        def __init__(self, network, data_preprocessor=None):
            super().__init__(data_preprocessor=data_preprocessor)
            self.resnet = network

        def forward(self, imgs, labels, mode):
            x = self.resnet(imgs)
            if mode == "loss":
                return {"loss": F.cross_entropy(x, labels)}
            if mode == "predict":
                return x, labels
            return x

    class MixUpDataPreprocessor(kit.BaseDataPreprocessor):
        def __init__(self, num_class, alpha):
            super().__init__()
            self.num_class, self.alpha = num_class, alpha

        def forward(self, data, training=False):
            data = tuple(self.cast_data(part) for part in data)
            if not training:
                return data
            imgs, labels = data
            scores = F.one_hot(labels, self.num_class).float()
            index = torch.randperm(len(imgs))
            lam = np.random.beta(self.alpha, self.alpha)
            imgs = lam * imgs + (1 - lam) * imgs[index]
            return imgs, lam * scores + (1 - lam) * scores[index]

    class Accuracy(kit.BaseMetric):
        def process(self, data_batch, data_samples):
            score, gt = data_samples
            correct = (score.argmax(dim=1) == gt).sum().cpu()
            self.results.append({"batch_size": len(gt), "correct": correct})

        def compute_metrics(self, results):
            correct = sum(item["correct"] for item in results)
            return {"accuracy": 100 * float(correct) / sum(item["batch_size"] for item in results)}

    return SimpleNamespace(
        MMResNet50=MMResNet50, MixUpDataPreprocessor=MixUpDataPreprocessor, Accuracy=Accuracy
    )


def dataset(size=24, side=8):
    """Images whose brightest channel is their label."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(size) % NUM_CLASSES
    imgs = torch.rand(size, 3, side, side, generator=generator)
    imgs[torch.arange(size), labels] += 1
    return TensorDataset(imgs, labels)


def tiny_network():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, NUM_CLASSES))


def train(kit, network, mixup, epochs=10, lr=0.5, data=None):
    """The bare loop: step by step, no Runner. Returns losses, accuracy and the model."""
    torch.manual_seed(0)
    np.random.seed(0)
    user, data = classifier(kit), data or dataset()
    preprocessor = user.MixUpDataPreprocessor(NUM_CLASSES, alpha=0.4) if mixup else None
    model = user.MMResNet50(network(), data_preprocessor=preprocessor)
    train_dataloader = DataLoader(data, batch_size=8, shuffle=True, collate_fn=kit.default_collate)
    val_dataloader = DataLoader(data, batch_size=10, collate_fn=kit.default_collate)
    optim_wrapper = kit.OptimWrapper(torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9))
    evaluator = kit.Evaluator(user.Accuracy())
    losses = []
    model.train()
    for _ in range(epochs):
        for batch in train_dataloader:
            losses.append(model.train_step(batch, optim_wrapper)["loss"].item())
    model.eval()
    with torch.no_grad():
        for batch in val_dataloader:
            outputs = model.val_step(batch)
            evaluator.process(data_samples=outputs, data_batch=batch)
    metrics = evaluator.evaluate(len(val_dataloader.dataset))
    return losses, metrics["accuracy"], model


@pytest.mark.parametrize("mixup", [False, True])
def test_bare_loop(mixup):
    losses, accuracy, _ = train(segfast_kit(), tiny_network, mixup)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / (1.2 if mixup else 2)
    assert accuracy == 100


@pytest.mark.parametrize("mixup", [False, True])
def test_the_same_code_gives_the_same_numbers_in_mmengine(mixup):
    theirs, their_accuracy, their_model = train(mmengine_kit(), tiny_network, mixup)
    ours, accuracy, model = train(segfast_kit(), tiny_network, mixup)
    assert ours == theirs
    assert accuracy == their_accuracy
    for a, b in zip(model.parameters(), their_model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_resnet50_itself():
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
    losses, _, model = train(
        segfast_kit(),
        lambda: torchvision.models.resnet50(num_classes=NUM_CLASSES),
        mixup=True,
        epochs=1,
        lr=0.01,
        data=dataset(16, side=32),
    )
    assert all(np.isfinite(losses))
    assert model(torch.zeros(1, 3, 32, 32), None, mode="tensor").shape == (1, NUM_CLASSES)
    assert len(losses) == 2


def test_mixup_mixes_in_training_only():
    user = classifier(segfast_kit())
    preprocessor = user.MixUpDataPreprocessor(NUM_CLASSES, alpha=1.0)
    imgs, labels = next(iter(DataLoader(dataset(), batch_size=24)))
    mixed, scores = preprocessor((imgs, labels), training=True)
    assert scores.shape == (24, NUM_CLASSES)
    torch.testing.assert_close(scores.sum(1), torch.ones(24))
    assert (scores.max(1).values < 1).sum() > 0
    assert not torch.equal(mixed, imgs)
    plain, same = preprocessor([imgs, labels], training=False)
    assert plain is imgs
    assert same is labels


def test_the_runner_drives_the_same_code(tmp_path):
    """As in "15 minutes to get started": loaders that are built already, short configs."""
    user, data = classifier(segfast_kit()), dataset()
    runner = segfast.Runner(
        model=user.MMResNet50(tiny_network()),
        work_dir=str(tmp_path),
        train_dataloader=DataLoader(data, batch_size=8, shuffle=True),
        optim_wrapper={"optimizer": {"type": torch.optim.SGD, "lr": 0.5, "momentum": 0.9}},
        train_cfg={"by_epoch": True, "max_epochs": 5, "val_interval": 1},
        val_dataloader=DataLoader(data, batch_size=10),
        val_cfg={},
        val_evaluator={"type": user.Accuracy},
        device="cpu",
        quiet=True,
    )
    runner.train()
    assert runner.epoch == 5
    assert runner.metrics["accuracy"] == 100
