"""What the op tests share: devices, error budgets, awkward memory layouts."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

# Every op test that takes `device` runs on both; the CUDA half is skipped (or demanded) by conftest.
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def assert_within_budget(actual, eager, truth, *, slack):
    """`actual` errs no more than eager in the same dtype does; `truth` is the float64 result."""
    assert actual.shape == truth.shape
    error, budget = (
        (t.double() - truth).abs().max().item() if t.numel() else 0.0 for t in (actual, eager)
    )
    assert error <= budget + slack, f"kernel error {error:.3e}, eager's {budget:.3e} + {slack:.1e}"


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
