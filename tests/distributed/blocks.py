"""A data set, a net and metrics small enough for several processes on two cores."""

# SPDX-License-Identifier: Apache-2.0

import os
from typing import ClassVar

import torch
from torch import nn

from segfast.distributed import world
from segfast.errors import DataError
from segfast.evaluation import BaseMetric, IoUMetric
from segfast.models import Segmentor
from segfast.runner.defaults import IMAGENET
from segfast.structures import PixelData, SegDataSample

CLASSES = 3


class Blocks(torch.utils.data.Dataset):
    """Noisy images (3, 16, 16) whose label maps are blocks of 4 x 4 pixels; a function of the index."""

    metainfo: ClassVar = {"classes": ("a", "b", "c")}

    def __init__(self, size=12, fail_at=None, nan_at=None):
        self.size, self.fail_at, self.nan_at = size, fail_at, nan_at

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if self.fail_at == int(index):
            raise DataError(f"image_{int(index)}.png: cannot be decoded")
        generator = torch.Generator().manual_seed(int(index))
        blocks = torch.randint(0, CLASSES, (4, 4), generator=generator)
        labels = blocks.repeat_interleave(4, 0).repeat_interleave(4, 1)
        noise = torch.randint(0, 60, (3, 16, 16), generator=generator)
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels[None].to(torch.uint8)))
        sample.set_metainfo({"ori_shape": (16, 16), "img_shape": (16, 16), "index": int(index)})
        image = (labels * 80 + noise).to(torch.uint8)
        if self.nan_at == int(index):
            image = image * float("nan")
        return {"inputs": image, "data_samples": sample}


class Counts(IoUMetric):
    """The confusion matrix itself, too."""

    def compute_metrics(self, results):
        metrics = super().compute_metrics(results)
        return {**metrics, "counts": sum(results).tolist()}


class Seen(BaseMetric):
    """Which samples were evaluated, in their order."""

    def process(self, data_batch, data_samples):
        self.results += [sample["index"] for sample in data_samples]

    def compute_metrics(self, results):
        return {"seen": results}


class Halved(Segmentor):
    """Its own initial weights, of which the first process's have to count."""

    def init_weights(self):
        for parameter in self.parameters():
            parameter.data.mul_(0.5).add_(world()[0])


def net(norm=False, dropout=0.0):
    norms = [nn.BatchNorm2d(8)] if norm else []
    first = [nn.Conv2d(3, 8, 3, padding=1), *norms, nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*first, nn.Conv2d(8, CLASSES, 1))


def config(
    work_dir,
    processes=1,
    *,
    data=(),
    val_size=7,
    model=(),
    segmentor="Segmentor",
    optim=(),
    **changes,
):
    """A training of 6 iterations of 4 samples, the same for any number of processes: they share the batch."""
    optimizer = {"type": "SGD", "lr": 0.05, "momentum": 0.9}
    full = {
        "model": {"type": segmentor, "net": {"type": net, **dict(model)}, "num_classes": CLASSES},
        "work_dir": str(work_dir),
        "train_dataloader": {
            "batch_size": 4 // processes,
            "dataset": {"type": Blocks, **dict(data)},
        },
        "val_dataloader": {"batch_size": 2, "dataset": {"type": Blocks, "size": val_size}},
        "val_evaluator": [{"type": Counts}, {"type": Seen}],
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 6, "val_interval": 6},
        "optim_wrapper": {"optimizer": optimizer, **dict(optim)},
        "default_hooks": {
            "logger": {"interval": 2},  # a checkpoint has half a line pending
            "checkpoint": {"interval": 3, "by_epoch": False, "max_keep_ckpts": -1},
        },
        "randomness": {"seed": 3},
        "device": os.environ.get("SEGFAST_TEST_DEVICE", "cpu"),
        "quiet": True,
    }
    return full | changes


EPOCHS = {"type": "EpochBasedTrainLoop", "max_epochs": 2, "val_interval": 2}
ADAM = {"type": "AdamW", "lr": 0.02}
CASES = {  # trained alike by any number of processes
    "adam": {"optim": {"optimizer": ADAM}},
    "accumulating": {"optim": {"accumulative_counts": 2, "clip_grad": {"max_norm": 0.1}}},
    "epochs": {"train_cfg": EPOCHS},
    "skipping": {"data": {"nan_at": 7}, "optim": {"nonfinite_loss": "skip"}},
    "initialised": {"segmentor": Halved, "data_preprocessor": IMAGENET},
    "averaged": {"custom_hooks": [{"type": "EMAHook", "momentum": 0.3}]},
}
SHARDED = {"model_wrapper_cfg": {"type": "FSDP", "min_params": 100}}
SHARDED_CASES = {
    f"sharded_{name}": CASES[name] | SHARDED
    for name in ("adam", "accumulating", "averaged", "initialised")
}
EXACT = {  # with random numbers of each process's own, and half an accumulation group in the checkpoint
    "dropout": {
        "model": {"dropout": 0.5},
        "optim": {"accumulative_counts": 2},
        "randomness": {"seed": 3, "diff_rank_seed": True},
    },
}
GO_ON = (
    "accumulating",
    "epochs",
    "sharded_accumulating",
    "sharded_averaged",
)  # by four where one stopped
LENGTHS = (1, 5, 7, 8)
