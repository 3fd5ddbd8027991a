"""The resize with a repeatable gradient, run on the CPU, against torch's."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F
from helpers import RESIZES

from segfast.models.resize import RepeatableResize, resize


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("small", "large"), RESIZES)
def test_repeatable_resize_has_torchs_values_and_gradient(small, large, align_corners):
    x = torch.randn(2, 3, *small, dtype=torch.float64, requires_grad=True)
    ours = RepeatableResize.apply(x, *large, align_corners)
    theirs = F.interpolate(x, large, mode="bilinear", align_corners=align_corners)
    assert torch.equal(ours, theirs)
    upstream = torch.randn_like(ours)
    gradients = [torch.autograd.grad(y, x, upstream)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_keep_the_dtype_also_under_autocast(dtype):
    x = torch.randn(1, 2, 3, 4, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = RepeatableResize.apply(x, 12, 16, False)
        (gradient,) = torch.autograd.grad(y.float().square().sum(), x)
    assert gradient.dtype == dtype
    exact = x.detach().double().requires_grad_()
    z = F.interpolate(exact, (12, 16), mode="bilinear")
    (want,) = torch.autograd.grad(z.square().sum(), exact)
    torch.testing.assert_close(gradient.double(), want, rtol=3e-2, atol=3e-2)


def test_resize_returns_what_fits_already():
    x = torch.randn(1, 2, 3, 4)
    assert resize(x, (3, 4)) is x
    assert resize(x, torch.Size((6, 8)), mode="nearest").shape == (1, 2, 6, 8)


@pytest.mark.cuda
def test_the_same_bits_on_cuda():
    x = torch.randn(4, 19, 64, 64, device="cuda", requires_grad=True)
    upstream = torch.randn(4, 19, 256, 256, device="cuda")
    gradients = [
        torch.autograd.grad(resize(x, (256, 256), repeatable=True), x, upstream)[0]
        for _ in range(5)
    ]
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
