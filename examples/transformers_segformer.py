"""SegFormer in the Trainer: loss and metrics from its quarter-size logits.

python examples/transformers_segformer.py [--epochs 5]

The model starts from random weights; `SegformerForSemanticSegmentation.from_pretrained(...)` goes in its place.
"""

# SPDX-License-Identifier: Apache-2.0
import argparse

import torch
from shapes import CLASSES, MEAN, STD, Shapes
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    Trainer,
    TrainingArguments,
)

from segfast.integrations.transformers import SegmentationMetrics, segmentation_loss
from segfast.ops import normalize_pad_stack


def collate(batch: list) -> dict[str, torch.Tensor]:
    """Pairs -> what SegFormer takes."""
    images, labels = zip(*batch, strict=True)
    return {
        "pixel_values": normalize_pad_stack(images, MEAN, STD),
        "labels": torch.stack(labels).long(),
    }


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, evaluate, and return the metrics."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--out", default="work_dirs/segformer")
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    config = SegformerConfig(
        num_labels=len(CLASSES),
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 16, 32, 32],
        decoder_hidden_size=32,
    )
    metrics = SegmentationMetrics(ignore_index=255, class_names=CLASSES)
    trainer = Trainer(
        model=SegformerForSemanticSegmentation(config),
        args=TrainingArguments(
            args.out,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=8,
            learning_rate=2e-3,
            logging_steps=4,
            save_strategy="no",
            report_to=[],
            remove_unused_columns=False,
        ),
        data_collator=collate,
        train_dataset=Shapes(seed=1),
        eval_dataset=Shapes(seed=2, count=16),
        compute_loss_func=segmentation_loss,
        compute_metrics=metrics,
        preprocess_logits_for_metrics=metrics.preprocess_logits,
    )
    trainer.train()
    scores = trainer.evaluate()
    print(scores)
    return scores


if __name__ == "__main__":
    main()
