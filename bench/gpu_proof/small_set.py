"""Every operator once or twice on a few awkward inputs: what the sanitizers watch.

Inputs are made on the CPU and copied, so that nearly every kernel that runs is ours; sizes are small because a watched
kernel is many times slower. Results are held to the CPU's loosely: precision is what the tests are for.
"""

# SPDX-License-Identifier: Apache-2.0

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from segfast import ops

LOGITS = [
    ((2, 19, 9, 11), (36, 44), torch.float32),  # an integer scale
    ((1, 150, 7, 5), (20, 13), torch.bfloat16),  # an odd one, more classes than a warp has threads
    ((2, 3, 17, 9), (6, 25), torch.float16),  # down in one direction, up in the other
]


def main(device: str) -> None:
    """Run all of it; the last line says that the end was reached."""
    for name, call in calls():
        on_cpu, on_device = (_on(call(place), "cpu") for place in ("cpu", device))
        for ours, theirs in zip(on_device, on_cpu, strict=True):
            torch.testing.assert_close(
                ours, theirs, rtol=2e-2, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}"
            )
    ops.check_labels()
    print("small set: done")


def calls() -> Iterator[tuple[str, Callable[[str], tuple]]]:
    """(name, call) pairs; a call takes the device and returns its tensors."""
    torch.manual_seed(0)
    for shape, size, dtype in LOGITS:
        logits = torch.randn(shape).to(dtype)
        label = _labels((shape[0], *size), shape[1])
        yield f"upsample_cross_entropy {shape}", _Loss(ops.upsample_cross_entropy, logits, label)
        yield (
            f"upsample_argmax {shape}",
            lambda d, x=logits, s=size: (ops.upsample_argmax(x.to(d), s)[:0],),
        )
        yield (
            f"upsample_confusion_matrix {shape}",
            lambda d, x=logits, y=label: (ops.upsample_confusion_matrix(x.to(d), y.to(d)).sum(),),
        )
        small = _labels((shape[0], *shape[2:]), shape[1])
        yield f"cross_entropy {shape}", _Loss(ops.cross_entropy, logits, small)
        wide = logits.contiguous(memory_format=torch.channels_last)
        yield f"cross_entropy channels_last {shape}", _Loss(ops.cross_entropy, wide, small)
    for num_classes, dtype in ((2, torch.uint8), (19, torch.int64), (300, torch.int16)):
        pred, label = (_labels((2, 33, 47), num_classes).to(dtype) for _ in range(2))
        pred = pred.clamp(max=num_classes - 1)
        yield (
            f"confusion_matrix {num_classes}",
            lambda d, p=pred, y=label, c=num_classes: (ops.confusion_matrix(p.to(d), y.to(d), c),),
        )
    images = [torch.randint(0, 256, (13 + i, 17 - i, 3), dtype=torch.uint8) for i in range(5)]
    yield from _image_calls([image.permute(2, 0, 1) for image in images], "interleaved")
    yield from _image_calls([image.permute(2, 0, 1).contiguous() for image in images], "planar")


def _image_calls(images: list[Tensor], layout: str) -> Iterator[tuple[str, Callable]]:
    for dtype in (torch.float32, torch.bfloat16):

        def normalize(device: str, dtype: torch.dtype = dtype) -> tuple:
            there = [_keep_strides(image, device) for image in images]
            return (ops.normalize_pad_stack(there, [1.0, 2, 3], [4.0, 5, 6], dtype=dtype),)

        yield f"normalize_pad_stack {layout} {dtype}", normalize
    yield f"pad_stack {layout}", lambda d: (ops.pad_stack([image[0].to(d) for image in images]),)


def _keep_strides(image: Tensor, device: str) -> Tensor:
    """`to` keeps the order of the dimensions in memory of a dense tensor."""
    return image.to(device, memory_format=torch.preserve_format)


class _Loss:
    """Forward and backward of a loss, with class weights, smoothing and ignored pixels."""

    def __init__(self, loss: Callable, logits: Tensor, label: Tensor) -> None:
        self.loss, self.logits, self.label = loss, logits, label
        self.weight = torch.rand(logits.shape[1]) + 0.5

    def __call__(self, device: str) -> tuple:
        logits = self.logits.to(device).requires_grad_()
        options = {"weight": self.weight.to(device), "ignore_index": 255, "label_smoothing": 0.1}
        loss = self.loss(logits, self.label.to(device), **options)
        return (loss.detach(), *torch.autograd.grad(loss, logits))


def _labels(shape: tuple, num_classes: int) -> Tensor:
    labels = torch.randint(0, min(num_classes, 255), shape, dtype=torch.uint8)
    labels[:, ::5] = 255
    return labels


def _on(values: Any, device: str) -> tuple:
    return tuple(value.to(device) for value in values)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cuda")
