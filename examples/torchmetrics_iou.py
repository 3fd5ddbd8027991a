"""Mean IoU as a torchmetrics Metric, beside another one, from a network's own quarter-size logits.

python examples/torchmetrics_iou.py
"""

# SPDX-License-Identifier: Apache-2.0
import torch
from shapes import CLASSES, MEAN, STD, Shapes
from torchmetrics import MeanMetric

from segfast.integrations.torchmetrics import MeanIoU
from segfast.models import SegNetS
from segfast.ops import normalize_pad_stack, upsample_cross_entropy


def main() -> dict[str, float]:
    """Evaluate an untrained network."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = SegNetS(num_classes=len(CLASSES)).to(device).eval()
    iou, mean_loss = MeanIoU(len(CLASSES)).to(device), MeanMetric().to(device)
    with torch.no_grad():
        for images, labels in torch.utils.data.DataLoader(Shapes(seed=2, count=16), batch_size=8):
            logits = net(normalize_pad_stack(list(images.to(device)), MEAN, STD))
            labels = labels.to(device)
            iou.update(logits, labels)  # adds to a (C, C) matrix; nothing waits for the device
            mean_loss.update(upsample_cross_entropy(logits, labels, ignore_index=255))
    scores = {"miou": iou.compute().item(), "loss": mean_loss.compute().item()}
    print(scores)
    return scores


if __name__ == "__main__":
    main()
