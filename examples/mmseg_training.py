"""An MMSegmentation config with a few `type` strings changed, run by MMEngine's Runner.

python examples/mmseg_training.py [--data FOLDER] [--iters 100]

FOLDER holds images/{train,val} and masks/{train,val} with the classes of the built-in shapes; without it some are drawn
into `--out`. A config file says `custom_imports = dict(imports=["segfast.integrations.mmseg"])` in place of the import.
"""

# SPDX-License-Identifier: Apache-2.0
import argparse
from pathlib import Path
from typing import Any

import cv2
from mmengine.config import Config
from mmengine.runner import Runner

import segfast.integrations.mmseg  # noqa: F401  (puts the names below into the registries)
from segfast.datasets.shapes import CLASSES, draw_shapes

NORM = {"type": "BN", "requires_grad": True}


def model_config() -> dict[str, Any]:
    """A small U-Net; the comments name what the stock config says."""
    return {
        "type": "SegfastEncoderDecoder",  # EncoderDecoder
        "data_preprocessor": {
            "type": "SegfastSegDataPreProcessor",  # SegDataPreProcessor
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "bgr_to_rgb": True,
            "size": (64, 64),
        },
        "backbone": {
            "type": "FastSCNN",
            "downsample_dw_channels": (16, 24),
            "global_in_channels": 32,
            "global_block_channels": (32, 48, 64),
            "global_block_strides": (2, 2, 1),
            "global_out_channels": 64,
            "higher_in_channels": 32,
            "lower_in_channels": 64,
            "fusion_out_channels": 64,
            "out_indices": (0, 1, 2),
            "norm_cfg": NORM,
        },
        "decode_head": {
            "type": "SegfastFCNHead",  # FCNHead
            "in_channels": 64,
            "in_index": -1,
            "channels": 32,
            "num_convs": 1,
            "concat_input": False,
            "num_classes": len(CLASSES),
            "norm_cfg": NORM,
            "loss_decode": {"type": "SegfastCrossEntropyLoss"},  # CrossEntropyLoss
        },
        "test_cfg": {"mode": "whole"},
    }


def config(data: Path, out: Path, iters: int) -> Config:
    """The whole config, as a file would say it."""

    def loader(part: str, sampler: str) -> dict[str, Any]:
        flip = [{"type": "RandomFlip", "prob": 0.5}] if part == "train" else []
        steps = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, *flip]
        dataset = {
            "type": "BaseSegDataset",
            "data_root": str(data),
            "data_prefix": {"img_path": f"images/{part}", "seg_map_path": f"masks/{part}"},
            "img_suffix": ".png",
            "metainfo": {"classes": CLASSES},
            "pipeline": [*steps, {"type": "PackSegInputs"}],
        }
        shuffle = {"type": sampler, "shuffle": part == "train"}
        return {"batch_size": 4, "num_workers": 0, "sampler": shuffle, "dataset": dataset}

    return Config(
        {
            "default_scope": "mmseg",
            "work_dir": str(out / "work_dir"),
            "model": model_config(),
            "train_dataloader": loader("train", "InfiniteSampler"),
            "val_dataloader": loader("val", "DefaultSampler"),
            "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": iters, "val_interval": iters},
            "val_cfg": {"type": "ValLoop"},
            "val_evaluator": {"type": "SegfastIoUMetric", "iou_metrics": ["mIoU"]},  # IoUMetric
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 2e-3}},
            "default_hooks": {
                "checkpoint": {"type": "CheckpointHook", "interval": -1, "by_epoch": False}
            },
            "randomness": {"seed": 0},
        }
    )


def draw(folder: Path) -> Path:
    """Write 32 images and their masks for training, 8 for validation."""
    for seed, part, count in ((1, "train", 32), (2, "val", 8)):
        for kind in ("images", "masks"):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, labels = draw_shapes(seed, index, 64)
            cv2.imwrite(str(folder / "images" / part / f"{index}.png"), image)
            cv2.imwrite(str(folder / "masks" / part / f"{index}.png"), labels)
    return folder


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, then validate; the validation's metrics."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/mmseg"))
    parser.add_argument("--iters", type=int, default=100)
    args = parser.parse_args(arguments)
    runner = Runner.from_cfg(config(args.data or draw(args.out / "data"), args.out, args.iters))
    runner.train()
    return runner.val()


if __name__ == "__main__":
    main()
