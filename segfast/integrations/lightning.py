"""Lightning: a LightningModule that trains any network on (images, labels), with our kernels at its three ends.

Use it as it is, or take its parts: each hook is the documented one, and each does one thing.
"""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segfast import ops
from segfast.integrations import missing
from segfast.integrations.torchmetrics import MeanIoU

try:
    from lightning.pytorch import LightningModule
except ImportError:
    try:
        from pytorch_lightning import LightningModule
    except ImportError as error:
        raise missing("lightning", "lightning", error) from error


class SegmentationModule(LightningModule):
    """Trains a network (N, C, H, W) -> logits (N, K, h, w), whatever its stride.

    Batches are (images, labels): images (N, C, H, W), uint8 or float; labels (N, H, W), integer. Logs `train_loss`,
    `train_acc`, `val_loss`, `val_iou` (fractions).

    Args:
        net: the network; build SMP's with `upsampling=1`.
        num_classes: K.
        mean: per channel; uint8 images then travel as they are and become float on the device.
        std: per channel, required with `mean`.
        ignore_index: label that is left out.
        lr: of AdamW. Override `configure_optimizers` for anything else.
        align_corners: of the resize from logits to labels.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        ignore_index: int = 255,
        lr: float = 1e-3,
        align_corners: bool = False,
    ) -> None:
        """Keep the network; every other argument goes into the checkpoint's `hyper_parameters`."""
        super().__init__()
        self.save_hyperparameters(ignore=["net"])
        self.net = net
        self.mean, self.std = mean, std
        self.ignore_index = ignore_index
        self.lr = lr
        self.align_corners = align_corners
        self.val_iou = MeanIoU(num_classes, ignore_index, align_corners=align_corners)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W), normalised -> logits (N, K, h, w)."""
        return self.net(images)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise on the device: one kernel from uint8 to float."""
        if self.mean is None:
            return batch
        images, labels = batch
        return ops.normalize_pad_stack(list(images), self.mean, self.std), labels

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss, and the share of right pixels from the same pass."""
        images, labels = batch
        loss, correct, valid = ops.upsample_cross_entropy(
            self(images),
            labels,
            ignore_index=self.ignore_index,
            align_corners=self.align_corners,
            return_accuracy=True,
        )
        self.log("train_loss", loss.detach(), prog_bar=True)
        self.log("train_acc", correct / valid)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count, and note the loss; neither holds full-size logits."""
        images, labels = batch
        logits = self(images)
        loss = ops.upsample_cross_entropy(
            logits, labels, ignore_index=self.ignore_index, align_corners=self.align_corners
        )
        self.val_iou.update(logits, labels)
        self.log("val_loss", loss, batch_size=len(images))
        self.log("val_iou", self.val_iou, prog_bar=True)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The class of every pixel, (N, H, W) uint8 or int64, at the images' size."""
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        logits = self(images)
        dtype = torch.uint8 if logits.shape[1] <= 256 else torch.int64
        return ops.upsample_argmax(
            logits, images.shape[-2:], align_corners=self.align_corners, dtype=dtype
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over all parameters."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr)
