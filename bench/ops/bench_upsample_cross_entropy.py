"""upsample_cross_entropy, forward and backward. Floor: small logits and gradient, labels and statistics twice."""

# SPDX-License-Identifier: Apache-2.0

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Work, run

from segfast.ops import upsample_cross_entropy, upsample_cross_entropy_reference

CASES = {
    "2x150x128x128 -> 512x512": {"shape": (2, 150, 128, 128), "size": (512, 512)},
    "2x19x128x128 -> 512x512": {"shape": (2, 19, 128, 128), "size": (512, 512)},
    "2x19x64x64 -> 512x512": {"shape": (2, 19, 64, 64), "size": (512, 512)},
    "2x11x90x120 -> 360x480": {"shape": (2, 11, 90, 120), "size": (360, 480)},
    "2x19x65x65 -> 513x513 align_corners": {
        "shape": (2, 19, 65, 65),
        "size": (513, 513),
        "align_corners": True,
    },
    "2x19x97x101 -> 331x350": {"shape": (2, 19, 97, 101), "size": (331, 350)},
}


def setup(shape: tuple, size: tuple, device: str, align_corners: bool = False) -> Work:
    logits = torch.randn(shape, device=device, requires_grad=True)
    label = torch.randint(0, shape[1], (shape[0], *size), dtype=torch.uint8, device=device)
    label[:, ::9] = 255
    label_int64 = label.long()  # eager needs int64; the conversion is not timed
    options = {"ignore_index": 255, "align_corners": align_corners}

    def ours() -> torch.Tensor:
        return torch.autograd.grad(upsample_cross_entropy(logits, label, **options), logits)[0]

    def eager() -> torch.Tensor:
        return torch.autograd.grad(
            upsample_cross_entropy_reference(logits, label_int64, **options), logits
        )[0]

    def check() -> None:
        torch.testing.assert_close(ours(), eager(), rtol=1e-3, atol=1e-7)

    return Work(ours, eager, check, 3 * logits.numel() * 4 + label.numel() * (2 + 16))


if __name__ == "__main__":
    run("upsample_cross_entropy", CASES, setup)
