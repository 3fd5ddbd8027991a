"""upsample_cross_entropy, forward and backward. Floor: small logits and gradient, labels and statistics twice.

Labels are noise unless the case says smooth.
"""

# SPDX-License-Identifier: Apache-2.0

from functools import partial

import torch

from segfast.bench.harness import Work, assert_close
from segfast.bench.labels import label_map
from segfast.ops import upsample_cross_entropy, upsample_cross_entropy_reference

FULL = (512, 512)
CASES = {
    "2x150x128x128 -> 512x512": {"shape": (2, 150, 128, 128), "size": FULL},
    "2x150x128x128 -> 512x512 smooth": {
        "shape": (2, 150, 128, 128),
        "size": FULL,
        "labels": "smooth",
    },
    "2x19x128x128 -> 512x512": {"shape": (2, 19, 128, 128), "size": FULL},
    "2x19x128x128 -> 512x512 smooth": {
        "shape": (2, 19, 128, 128),
        "size": FULL,
        "labels": "smooth",
    },
    "2x19x128x128 -> 512x512 channels_last": {
        "shape": (2, 19, 128, 128),
        "size": FULL,
        "channels_last": True,
    },
    "2x19x128x128 -> 512x512 weight, smoothing, accuracy": {
        "shape": (2, 19, 128, 128),
        "size": FULL,
        "everything": True,
    },
    "2x19x64x64 -> 512x512": {"shape": (2, 19, 64, 64), "size": FULL},
    "2x19x64x64 -> 512x512 bfloat16": {
        "shape": (2, 19, 64, 64),
        "size": FULL,
        "dtype": torch.bfloat16,
    },
    "2x11x90x120 -> 360x480": {"shape": (2, 11, 90, 120), "size": (360, 480)},
    "2x19x32x32 -> 512x512": {"shape": (2, 19, 32, 32), "size": FULL},
    "2x19x256x256 -> 512x512": {"shape": (2, 19, 256, 256), "size": FULL},
    "2x19x120x160 -> 360x480": {"shape": (2, 19, 120, 160), "size": (360, 480)},
    "2x19x65x65 -> 513x513 align_corners": {
        "shape": (2, 19, 65, 65),
        "size": (513, 513),
        "align_corners": True,
    },
    "2x19x97x101 -> 331x350": {"shape": (2, 19, 97, 101), "size": (331, 350)},
}
CUDA_CASES = {
    f"{'x'.join(map(str, shape))} -> {size[0]}x{size[1]} {str(dtype)[6:]}{''.join(f' {key}' for key in more)}": {
        "shape": shape,
        "size": size,
        "dtype": dtype,
        **more,
    }
    for shape, size, dtypes, more in (
        ((16, 150, 128, 128), FULL, (torch.float32, torch.bfloat16), {}),
        ((8, 19, 128, 256), (512, 1024), (torch.float32, torch.bfloat16), {}),
        ((8, 19, 64, 128), (512, 1024), (torch.float32, torch.bfloat16), {}),
        ((8, 19, 128, 256), (512, 1024), (torch.bfloat16,), {"channels_last": True}),
        ((8, 19, 128, 256), (512, 1024), (torch.bfloat16,), {"everything": True}),
        ((8, 19, 129, 129), (513, 513), (torch.float32,), {"align_corners": True}),
        ((8, 19, 97, 101), (331, 350), (torch.float32,), {}),
    )
    for dtype in dtypes
}
MEMORY_CASES = {"16x150x128x128 -> 512x512": {"shape": (16, 150, 128, 128), "size": FULL}}


def setup(
    shape: tuple,
    size: tuple,
    device: str,
    labels: str = "noise",
    dtype: torch.dtype = torch.float32,
    align_corners: bool = False,
    channels_last: bool = False,
    everything: bool = False,
) -> Work:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    logits = torch.randn(shape, device=device).to(dtype).contiguous(memory_format=layout)
    logits.requires_grad_()
    label = label_map(labels, (shape[0], *size), shape[1], device)
    label_int64 = label.long()  # eager needs int64; the conversion is not timed
    options = {"ignore_index": 255, "align_corners": align_corners}
    if everything:
        options |= {
            "weight": torch.rand(shape[1], device=device) + 0.5,
            "label_smoothing": 0.1,
            "return_accuracy": True,
        }

    def step(function, target, x=logits) -> tuple:
        outputs = function(x, target, **options)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return (*outputs, *torch.autograd.grad(outputs[0], x))

    def check() -> None:
        wide = logits.detach().float().requires_grad_()
        expected = step(upsample_cross_entropy_reference, label_int64, wide)
        rtol = 1e-2 if dtype == torch.bfloat16 else 1e-3
        assert_close(step(upsample_cross_entropy, label), expected, rtol)

    return Work(
        segfast=partial(step, upsample_cross_entropy, label),
        eager=partial(step, upsample_cross_entropy_reference, label_int64),
        compiled=lambda: partial(
            step, torch.compile(upsample_cross_entropy_reference), label_int64
        ),
        check=check,
        floor_bytes=3 * logits.numel() * logits.element_size() + label.numel() * (2 + 16),
        elements=label.numel() * shape[1],
    )
