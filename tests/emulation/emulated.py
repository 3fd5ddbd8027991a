"""What the tests of the emulated kernels share."""

# SPDX-License-Identifier: Apache-2.0

import torch


def labels(shape, num_classes, dtype=torch.uint8):
    """Random labels, a fifth of them ignored (255 in uint8, else -1)."""
    result = torch.randint(num_classes, shape)
    result[torch.rand(shape) < 0.2] = 255 if dtype == torch.uint8 else -1
    return result.to(dtype)


def both(name, emulated, *args):
    """The same call on the CPU kernel and on the emulated CUDA kernel."""
    return getattr(torch.ops.segfast, name)(*args), getattr(emulated, name)(*args)


def close(actual, expected, **tolerance):
    """Equal but for rounding; NaN where NaN is expected."""
    torch.testing.assert_close(
        actual, expected, equal_nan=True, **({"rtol": 2e-5, "atol": 2e-6} | tolerance)
    )
