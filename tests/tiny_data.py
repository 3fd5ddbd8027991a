"""A folder of tiny two-class pictures and a config that learns them in a second."""

# SPDX-License-Identifier: Apache-2.0

import numpy as np
from PIL import Image


def make_folder(root, count=6):
    """Left half dark (class 0), right half bright (class 1); two widths."""
    generator = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / part).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            mask = np.zeros((24, 32 + 8 * (i % 2)), np.uint8)
            mask[:, mask.shape[1] // 2 :] = 1
            noise = generator.integers(0, 60, (*mask.shape, 3))
            image = (mask[..., None] * 150 + noise).astype(np.uint8)
            Image.fromarray(image).save(root / "images" / part / f"{i}.png")
            Image.fromarray(mask).save(root / "masks" / part / f"{i}.png")
    return root


def folder_config(root, **model):
    """A whole config on that folder; `model` replaces arguments of the Segmentor."""
    net = {"type": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 2, "kernel_size": 1}
    preprocessor = {
        "type": "SegDataPreProcessor",
        "mean": [105.0] * 3,
        "std": [75.0] * 3,
        "size_divisor": 8,
        "test_cfg": {"size_divisor": 8},
    }
    return {
        "model": {
            "type": "Segmentor",
            "net": net,
            "num_classes": 2,
            "data_preprocessor": preprocessor,
            **model,
        },
        "train_dataloader": _loader(root, "train"),
        "val_dataloader": _loader(root, "val"),
        "train_cfg": {"max_iters": 20, "val_interval": 10},
        "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.1}},
        "default_hooks": {"logger": {"interval": 5}},
        "randomness": {"seed": 0},
        "device": "cpu",
    }


def _loader(root, part):
    dataset = {
        "type": "BaseSegDataset",
        "data_root": str(root),
        "data_prefix": {"img_path": f"images/{part}", "seg_map_path": f"masks/{part}"},
        "img_suffix": ".png",
        "metainfo": {"classes": ("dark", "bright"), "palette": [(0, 0, 90), (250, 250, 0)]},
        "test_mode": part == "val",
    }
    return {"batch_size": 2, "dataset": dataset}
