"""What the op tests share: devices, error budgets, awkward memory layouts."""

# SPDX-License-Identifier: Apache-2.0

import os

import pytest
import torch

# For programs that tests compile: the sanitizers that the libraries were built with, see .ci/sanitized.
_NAMES = os.environ.get("SEGFAST_SANITIZE")
SANITIZERS = [f"-fsanitize={_NAMES}", "-fno-sanitize-recover=all", "-g1"] if _NAMES else []

# Every op test that takes `device` runs on both; the CUDA half is skipped (or demanded) by conftest.
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


# (h, w) -> (H, W): integer scales, odd ones, none, up in one direction and down in the other, single rows and pixels
RESIZES = [
    ((8, 9), (16, 18)), ((8, 9), (32, 36)), ((5, 7), (40, 56)), ((6, 5), (18, 15)), ((9, 11), (9, 11)), ((9, 11), (20, 31)),
    ((13, 10), (37, 43)), ((17, 19), (5, 6)), ((16, 8), (8, 24)), ((1, 1), (7, 9)), ((1, 6), (9, 13)), ((6, 1), (9, 13)),
    ((7, 7), (1, 1)), ((18, 70), (19, 140)), ((40, 300), (41, 303)), ((2, 2), (100, 3)), ((9, 11), (9, 40)),
]  # fmt: skip


def assert_within_budget(actual, eager, truth, *, slack):
    """`actual` errs no more than eager in the same dtype does; `truth` is the float64 result."""
    assert actual.shape == truth.shape
    error, budget = (
        (t.double() - truth).abs().max().item() if t.numel() else 0.0 for t in (actual, eager)
    )
    assert error <= budget + slack, f"kernel error {error:.3e}, eager's {budget:.3e} + {slack:.1e}"


def assert_same_choice(chosen, logits, size, *, align_corners=False, most=1e-3):
    """`chosen` (N, H, W) is the argmax of `logits` resized in float64, rounding apart.

    The positions of samples are rounded once, to float32, so blends differ by a few units in the last place: a pixel may
    fall to another class only where the reference's own two blends are that close, and such pixels are rare (`most`).
    """
    full = logits.double()
    if full.shape[2:] != size:
        full = torch.nn.functional.interpolate(
            full, size, mode="bilinear", align_corners=align_corners
        )
    expected = full.argmax(1)
    assert chosen.shape == expected.shape
    chosen = chosen.long()
    differing = chosen != expected
    assert differing.sum() <= 1 + most * differing.numel()
    of_chosen, of_expected = (full.gather(1, i[:, None])[:, 0] for i in (chosen, expected))
    few_ulps = 8 * torch.finfo(torch.float32).eps * logits.double().abs().max()
    assert ((of_expected - of_chosen)[differing] <= few_ulps).all()


def argmax_with_nan(logits, size):
    """Eager's choice after a resize, but a NaN reaches only the pixels in which its sample has a weight."""
    resize = {"size": size, "mode": "bilinear"}
    touched = torch.nn.functional.interpolate(logits.isnan().double(), **resize) > 1e-9
    full = torch.nn.functional.interpolate(logits.double().nan_to_num(), **resize)
    return full.masked_fill(touched, torch.nan).argmax(1)


def strided(x, layout):
    """The same values in another memory layout."""
    if layout == "contiguous":
        return x.contiguous()
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "cropped":  # rows with gaps
        return torch.nn.functional.pad(x, (1, 2, 0, 1))[..., : x.shape[-2], 1 : 1 + x.shape[-1]]
    if layout == "transposed":
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "every_second":
        wide = x.new_zeros(*x.shape[:-1], x.shape[-1] * 2)
        wide[..., ::2] = x
        return wide[..., ::2]
    raise ValueError(layout)


LAYOUTS = ["contiguous", "channels_last", "cropped", "transposed", "every_second"]


def random_labels(
    shape, num_classes, *, ignore_index=255, ignored=0.2, dtype=torch.uint8, device="cpu"
):
    """Labels in [0, num_classes), about `ignored` of them the ignore index."""
    labels = torch.randint(num_classes, shape)
    labels[torch.rand(shape) < ignored] = ignore_index
    return labels.to(device=device, dtype=dtype)
