"""A model and a data set small enough to train in milliseconds."""

# SPDX-License-Identifier: Apache-2.0

from typing import ClassVar

import torch
from torch import nn

from segfast.datasets import SampleKey
from segfast.evaluation import BaseMetric
from segfast.models import BaseModel


class ToyData(torch.utils.data.Dataset):
    """x in R^2 -> 3 x_0 - x_1, with noise that depends on (seed, epoch, index) as augmentation does."""

    metainfo: ClassVar = {"classes": ("value",)}

    def __init__(self, size=24):
        self.size = size
        self.seen = []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.seen.append(int(index))
        epoch = index.epoch if isinstance(index, SampleKey) else 0
        generator = torch.Generator().manual_seed(int(index) * 1000 + epoch)
        x = torch.randn(2, generator=generator)
        return {"inputs": x, "data_samples": 3 * x[0] - x[1]}


class ToyModel(BaseModel):
    """A linear layer with dropout, so that the global random state matters too."""

    def __init__(self, dropout=0.2):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        out = self.layer(self.dropout(torch.stack(list(inputs)))).squeeze(1)
        if mode == "loss":
            return {"loss_fit": (out - torch.stack(list(data_samples))).square().mean()}
        return (
            [{"error": (o - t).abs()} for o, t in zip(out, data_samples, strict=True)]
            if mode == "predict"
            else out
        )


class ToyMetric(BaseMetric):
    """Mean error; "aAcc" so that the best-checkpoint rule is known."""

    def process(self, data_batch, data_samples):
        self.results += [float(sample["error"]) for sample in data_samples]

    def compute_metrics(self, results):
        return {"aAcc": 100 - sum(results) / len(results)}


def toy_config(work_dir, **changes):
    """A whole training config; `changes` replace top-level keys."""
    config = {
        "model": {"type": ToyModel},
        "work_dir": str(work_dir),
        "train_dataloader": {"batch_size": 4, "dataset": {"type": ToyData}},
        "val_dataloader": {"batch_size": 4, "dataset": {"type": ToyData, "size": 10}},
        "val_evaluator": {"type": ToyMetric},
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 20, "val_interval": 10},
        "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.05}},
        "default_hooks": {
            "logger": {"interval": 5},
            "checkpoint": {"interval": 10},
            "visualization": None,
        },
        "randomness": {"seed": 3},
        "device": "cpu",
        "quiet": True,
    }
    return config | changes
