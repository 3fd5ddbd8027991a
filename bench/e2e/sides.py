"""The two sides of a training step: what MMSegmentation does around a network, written out, and segfast's objects.

`EagerSide` copies every image and every int64 label map by itself, normalises image by image, resizes the logits to
full size in the dtype autocast gives them, takes the accuracy and reads loss and accuracy every step, as MMEngine's
message hub does. What upstream does needlessly (a resize to the same size, topk for one class, masks that wait) is left
out. Both sides have the same optimiser and autocast to bfloat16.
"""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segfast.evaluation import Evaluator, IoUMetric
from segfast.models import Segmentor
from segfast.runner import AmpOptimWrapper

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
SGD = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
IGNORED = 255


class EagerSide:
    """The network under plain torch.

    Args:
        net: moved to the device.
        num_classes: C.
        device: "cpu" or "cuda".
        amp: whether forward runs under autocast to bfloat16.
    """

    label_dtype = torch.int64

    def __init__(self, net: nn.Module, num_classes: int, device: str, amp: bool = True) -> None:
        """Make the optimiser."""
        self.net, self.num_classes = net.to(device), num_classes
        self.device, self.amp = device, amp
        self.optimizer = torch.optim.SGD(net.parameters(), **SGD)
        self.mean, self.std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (MEAN, STD))
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.log: list[float] = []

    def train_step(self, batch: Mapping[str, Any]) -> None:
        """One iteration; loss and accuracy are read at once."""
        self.net.train()
        images, labels = self.preprocess(batch)
        with self.autocast():
            logits = F.interpolate(self.net(images), labels.shape[1:], mode="bilinear")
            loss = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none").mean()
            valid = labels != IGNORED
            right = ((logits.argmax(1) == labels) & valid).sum()
            accuracy = 100 * right / valid.sum()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.log += [loss.item(), accuracy.item()]

    def read_log(self) -> float:
        """The last loss."""
        return self.log[-2]

    @torch.no_grad()
    def val_step(self, batch: Mapping[str, Any]) -> None:
        """One validation batch: full-size logits, classes, then counts image by image on the host."""
        self.net.eval()
        images, labels = self.preprocess(batch)
        with self.autocast():
            logits = F.interpolate(self.net(images), labels.shape[1:], mode="bilinear")
        for image_logits, label in zip(logits, labels, strict=True):
            pred, keep = image_logits.argmax(0), label != IGNORED
            pairs = label[keep] * self.num_classes + pred[keep]
            counts = torch.bincount(pairs, minlength=self.num_classes**2)
            self.counts += counts.cpu().view_as(self.counts)

    def preprocess(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Copy, convert, normalise and pad one image after the other, then stack."""
        images = [image.to(self.device) for image in batch["inputs"]]
        labels = [sample.gt_sem_seg.data.to(self.device) for sample in batch["data_samples"]]
        images = [(image[[2, 1, 0]].float() - self.mean) / self.std for image in images]
        height, width = (max(image.shape[i] for image in images) for i in (1, 2))
        rooms = [(0, width - image.shape[2], 0, height - image.shape[1]) for image in images]
        images = [F.pad(image, room) for image, room in zip(images, rooms, strict=True)]
        labels = [F.pad(y, room, value=IGNORED) for y, room in zip(labels, rooms, strict=True)]
        return torch.stack(images), torch.stack(labels).squeeze(1)

    def autocast(self) -> torch.autocast:
        """To bfloat16, or none."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.amp)


class SegfastSide:
    """The same network in a `Segmentor`, with what the Runner would build around it; arguments as `EagerSide`."""

    label_dtype = torch.uint8

    def __init__(self, net: nn.Module, num_classes: int, device: str, amp: bool = True) -> None:
        """Make model, optimiser and evaluator."""
        self.model = segmentor(net, num_classes).to(device)
        self.device, self.amp = device, amp
        optimizer = torch.optim.SGD(self.model.parameters(), **SGD)
        self.optim_wrapper = AmpOptimWrapper(optimizer, "bfloat16" if amp else "float32")
        self.evaluator = Evaluator(IoUMetric())
        self.evaluator.dataset_meta = {"classes": [str(k) for k in range(num_classes)]}
        self.log: list[Tensor] = []

    def train_step(self, batch: Mapping[str, Any]) -> None:
        """One iteration; nothing is read."""
        self.model.train()
        self.log.append(self.model.train_step(batch, self.optim_wrapper)["loss"].detach())

    def read_log(self) -> float:
        """The last loss, in one transfer of all since the last call, as at a log line."""
        values = torch.stack(self.log).tolist() if self.log else [float("nan")]
        self.log = []
        return values[-1]

    @torch.no_grad()
    def val_step(self, batch: Mapping[str, Any]) -> None:
        """One validation batch, counted on the device."""
        self.model.eval()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.amp):
            outputs = self.model.val_step(batch)
        self.evaluator.process(data_samples=outputs, data_batch=batch)

    @property
    def counts(self) -> Tensor:
        """(C, C) on the CPU, as EagerSide's."""
        return self.evaluator.metrics[0].results[0].cpu()


def segmentor(net: nn.Module, num_classes: int) -> Segmentor:
    """The model of a config with MMSegmentation's defaults."""
    preprocessor = {"type": "SegDataPreProcessor", "mean": MEAN, "std": STD, "bgr_to_rgb": True}
    return Segmentor(net, num_classes=num_classes, data_preprocessor=preprocessor)
