"""Small parts of segmentors, registered, and batches for them."""

# SPDX-License-Identifier: Apache-2.0

from itertools import pairwise

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from segfast.models import BaseCascadeDecodeHead, BaseDecodeHead
from segfast.registry import MODELS
from segfast.structures import PixelData, SegDataSample


@MODELS.register_module()
class TinyBackbone(nn.Module):
    """Feature maps of 4, 6 and 8 channels at strides 2, 4 and 8."""

    def __init__(self, pretrained=None):
        super().__init__()
        self.pretrained = pretrained
        widths = (3, 4, 6, 8)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(widths)
        )

    def forward(self, x):
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


@MODELS.register_module()
class TinyHead(BaseDecodeHead):
    """Classifies the last feature map."""

    def __init__(self, num_classes=5, **kwargs):
        super().__init__(8, 8, num_classes=num_classes, **kwargs)

    def forward(self, inputs):
        return self.cls_seg(self._transform_inputs(inputs))


@MODELS.register_module()
class TinyCascadeHead(BaseCascadeDecodeHead):
    """Mixes the last feature map with what the head before it said."""

    def __init__(self, num_classes=5, **kwargs):
        super().__init__(8, 8, num_classes=num_classes, **kwargs)
        self.mix = nn.Conv2d(8 + self.out_channels, 8, 1)

    def forward(self, inputs, prev_output):
        return self.cls_seg(self.mix(torch.cat([inputs[-1], prev_output], dim=1)))


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any float tensor of the operators inside had."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                self.largest = max(self.largest, value.numel())
        return out


def labelled(size, count=2, num_classes=5, **metainfo):
    """Samples with random labels, a row of them ignored."""
    samples = []
    for i in range(count):
        label = torch.randint(num_classes, (1, *size))
        label[0, 0] = 255
        meta = {"ori_shape": size, "img_shape": size, "img_path": f"image_{i}.png", **metainfo}
        samples.append(SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=label)))
    return samples


class NoWaiting(TorchDispatchMode):
    """Refuses the operators for whose result the host would wait on a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in (args[1] if isinstance(args[1], (list, tuple)) else [])
        )
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "item")
        assert name not in waits, f"{name} waits for the device"
        assert not by_mask, f"{name} by a mask waits for the device"
        return func(*args, **(kwargs or {}))
