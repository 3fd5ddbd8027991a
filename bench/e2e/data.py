"""Made-up training data: uint8 pictures with label maps, cropped and flipped as a pipeline would, no decoding."""

# SPDX-License-Identifier: Apache-2.0

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from segfast.bench.labels import label_map
from segfast.structures import PixelData, SegDataSample

POOL = 8  # pictures in memory; an item is a crop of one of them
MARGIN = 28  # pixels that a crop moves by


class Crops(Dataset):
    """Crops of a few noise pictures with smooth labels.

    Args:
        size: (H, W) of a crop.
        num_classes: C.
        label_dtype: of the label maps: what a pipeline hands on, int64 in MMSegmentation's, uint8 in ours.
        length: number of items.
    """

    def __init__(
        self, size: tuple[int, int], num_classes: int, label_dtype: torch.dtype, length: int = 4096
    ) -> None:
        """Make the pool from seed 0."""
        self.size, self.label_dtype, self.length = size, label_dtype, length
        self.metainfo = {"classes": [str(k) for k in range(num_classes)]}
        full = (size[0] + MARGIN, size[1] + MARGIN)
        state = torch.get_rng_state()
        torch.manual_seed(0)
        self.images = torch.randint(0, 256, (POOL, 3, *full), dtype=torch.uint8).numpy()
        self.labels = label_map("smooth", (POOL, *full), num_classes, "cpu").numpy()
        torch.set_rng_state(state)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`inputs` (3, H, W) uint8 and a `SegDataSample`."""
        generator = np.random.default_rng(int(index))
        top, left = generator.integers(0, MARGIN, 2)
        place = np.s_[..., top : top + self.size[0], left : left + self.size[1]]
        step = -1 if generator.random() < 0.5 else 1
        image = np.ascontiguousarray(self.images[index % POOL][place][..., ::step])
        label = np.ascontiguousarray(self.labels[index % POOL][place][..., ::step])
        sample = SegDataSample(
            metainfo={"ori_shape": self.size, "img_shape": self.size, "img_path": f"{index}.png"}
        )
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(label)[None].to(self.label_dtype))
        return {"inputs": torch.from_numpy(image), "data_samples": sample}
