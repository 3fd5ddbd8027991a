"""cross_entropy, forward and backward. Floor: the logits read and their gradient written, labels read twice.

On the CPU the logits are read twice: its gradient is not formed in the forward walk. Labels are noise.
"""

# SPDX-License-Identifier: Apache-2.0

from functools import partial

import torch

from segfast.bench.harness import Work, assert_close
from segfast.bench.labels import label_map
from segfast.ops import cross_entropy, cross_entropy_reference

CASES = {
    "2x19x512x512 float32": {"shape": (2, 19, 512, 512)},
    "2x19x512x512 channels_last": {"shape": (2, 19, 512, 512), "channels_last": True},
    "2x19x512x512 bfloat16": {"shape": (2, 19, 512, 512), "dtype": torch.bfloat16},
    "2x150x256x256 float32": {"shape": (2, 150, 256, 256)},
}
CUDA_CASES = {
    f"{'x'.join(map(str, shape))} {str(dtype)[6:]}{' channels_last' if channels_last else ''}": {
        "shape": shape,
        "dtype": dtype,
        "channels_last": channels_last,
    }
    for shape in ((8, 19, 512, 1024), (8, 150, 512, 512))
    for dtype, channels_last in (
        (torch.float32, False),
        (torch.bfloat16, False),
        (torch.bfloat16, True),
    )
}


def setup(
    shape: tuple, device: str, dtype: torch.dtype = torch.float32, channels_last: bool = False
) -> Work:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    logits = torch.randn(shape, device=device).to(dtype).contiguous(memory_format=layout)
    logits.requires_grad_()
    label = label_map("noise", (shape[0], *shape[2:]), shape[1], device)
    label_int64 = label.long()  # eager needs int64; the conversion is not timed

    def step(function, target, x=logits) -> tuple:
        loss = function(x, target, ignore_index=255)
        return (loss, *torch.autograd.grad(loss, x))

    def check() -> None:
        wide = logits.detach().float().requires_grad_()
        expected = step(cross_entropy_reference, label_int64, wide)
        rtol = 1e-2 if dtype == torch.bfloat16 else 1e-4
        assert_close(step(cross_entropy, label), expected, rtol)

    return Work(
        segfast=partial(step, cross_entropy, label),
        eager=partial(step, cross_entropy_reference, label_int64),
        compiled=lambda: partial(step, torch.compile(cross_entropy_reference), label_int64),
        check=check,
        floor_bytes=(2 if device == "cuda" else 3) * logits.numel() * logits.element_size()
        + 2 * label.numel(),
        elements=logits.numel(),
    )
