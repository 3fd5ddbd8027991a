"""cross_entropy, forward and backward. Floor: the logits read twice and their gradient written, labels read twice."""

# SPDX-License-Identifier: Apache-2.0

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Work, run

from segfast.ops import cross_entropy, cross_entropy_reference

CASES = {
    "2x19x512x512 float32": {"shape": (2, 19, 512, 512), "dtype": torch.float32},
    "2x19x512x512 bfloat16": {"shape": (2, 19, 512, 512), "dtype": torch.bfloat16},
    "2x150x256x256 float32": {"shape": (2, 150, 256, 256), "dtype": torch.float32},
}


def setup(shape: tuple, dtype: torch.dtype, device: str) -> Work:
    logits = torch.randn(shape, device=device).to(dtype).requires_grad_()
    label = torch.randint(0, shape[1], (shape[0], *shape[2:]), dtype=torch.uint8, device=device)
    label[:, ::9] = 255
    label_int64 = label.long()  # eager needs int64; the conversion is not timed

    def ours() -> torch.Tensor:
        return torch.autograd.grad(cross_entropy(logits, label, ignore_index=255), logits)[0]

    def eager() -> torch.Tensor:
        return torch.autograd.grad(
            cross_entropy_reference(logits, label_int64, ignore_index=255), logits
        )[0]

    def check() -> None:
        torch.testing.assert_close(
            ours(), eager(), rtol=2e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-7
        )

    return Work(ours, eager, check, 3 * logits.numel() * logits.element_size() + 2 * label.numel())


if __name__ == "__main__":
    run("cross_entropy", CASES, setup)
