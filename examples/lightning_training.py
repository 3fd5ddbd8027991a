"""A network under Lightning's Trainer: uint8 batches, fused loss, exact IoU.

python examples/lightning_training.py [--epochs 5]
"""

# SPDX-License-Identifier: Apache-2.0
import argparse

import lightning.pytorch as lightning
from shapes import CLASSES, MEAN, STD, Shapes
from torch.utils.data import DataLoader

from segfast.integrations.lightning import SegmentationModule
from segfast.models import SegNetS


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, validate, and return what was logged last."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", default="work_dirs/lightning")
    args = parser.parse_args(arguments)
    lightning.seed_everything(0)
    module = SegmentationModule(
        SegNetS(num_classes=len(CLASSES)), len(CLASSES), mean=MEAN, std=STD, lr=2e-3
    )
    trainer = lightning.Trainer(
        max_epochs=args.epochs, default_root_dir=args.out, logger=False, log_every_n_steps=4
    )
    train = DataLoader(Shapes(seed=1), batch_size=8, shuffle=True)
    trainer.fit(module, train, DataLoader(Shapes(seed=2, count=16), batch_size=8))
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    main()
