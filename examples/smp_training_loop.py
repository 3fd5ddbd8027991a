"""A training loop of one's own around a network of segmentation_models_pytorch.

python examples/smp_training_loop.py [--steps 200]

`upsampling=1` leaves the logits at a quarter of the image's size; loss and statistics resize them in registers.
"""

# SPDX-License-Identifier: Apache-2.0
import argparse

import segmentation_models_pytorch as smp
import torch
from shapes import CLASSES, MEAN, STD, Shapes

from segfast.integrations.smp import SoftCrossEntropyLoss, get_stats
from segfast.ops import normalize_pad_stack


def main(arguments: list[str] | None = None) -> float:
    """Train, evaluate, and return the mean IoU."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args(arguments).steps
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = smp.FPN("mobilenet_v2", encoder_weights=None, classes=len(CLASSES), upsampling=1).to(
        device
    )
    loss_of = SoftCrossEntropyLoss(smooth_factor=0.0, ignore_index=255)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    loader = torch.utils.data.DataLoader(Shapes(seed=1), batch_size=8, shuffle=True)
    step = 0
    while step < steps:
        for images, labels in loader:  # both uint8: a quarter and an eighth of the usual bytes
            inputs = normalize_pad_stack(list(images.to(device)), MEAN, STD)
            loss = loss_of(net(inputs), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 20 == 0 or step == steps:
                print(f"step {step}: loss {loss.item():.4f}")
            if step == steps:
                break
    return evaluate(net.eval(), device)


@torch.no_grad()
def evaluate(net: torch.nn.Module, device: str) -> float:
    """The mean IoU over images that were not trained on."""
    stats = []
    for images, labels in torch.utils.data.DataLoader(Shapes(seed=2, count=16), batch_size=8):
        inputs = normalize_pad_stack(list(images.to(device)), MEAN, STD)
        stats.append(get_stats(net(inputs), labels.to(device), ignore_index=255))
    tp, fp, fn, tn = (torch.cat(counts) for counts in zip(*stats, strict=True))
    iou = smp.metrics.iou_score(tp, fp, fn, tn, reduction="macro").item()
    print(f"mean IoU {iou:.3f}")
    return iou


if __name__ == "__main__":
    main()
