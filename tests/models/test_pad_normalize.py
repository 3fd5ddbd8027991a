"""Both orders of padding and normalisation: the kernel against the steps."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from segfast.models.pad_normalize import (
    Padding,
    check_equal_padding,
    padding_size,
    stack_images,
    stack_images_reference,
)

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def pixels(*shape, dtype=torch.uint8):
    return (torch.rand(shape) * 255).to(dtype)


def normalizer(mean, std):
    view = (-1, 1, 1)
    return lambda x: (x - torch.tensor(mean).view(view)) / torch.tensor(std).view(view)


def test_golden():
    image = torch.full((3, 1, 1), 9, dtype=torch.uint8)
    padding = Padding(size_divisor=2, value=5.9)  # 5 in a uint8 image
    first = stack_images([image], [1.0, 3.0, 5.0], [4.0], padding, swap=False, pad_first=True)
    assert first[0].tolist() == [[[2, 1], [1, 1]], [[1.5, 0.5], [0.5, 0.5]], [[1, 0], [0, 0]]]
    last = stack_images([image], [1.0], [4.0], padding, swap=False, pad_first=False)
    torch.testing.assert_close(last[0, 2], torch.tensor([[2, 5.9], [5.9, 5.9]]))


@pytest.mark.parametrize("pad_first", [True, False])
@pytest.mark.parametrize("mode", ["constant", "replicate"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize(("channels", "lead"), [(1, ()), (3, ()), (4, ()), (3, (2,))])
def test_matches_reference(pad_first, mode, dtype, channels, lead):
    mean, std = (MEAN, STD) if channels == 3 else ([127.5], [127.5])
    kind = torch.float32 if mode == "replicate" else dtype  # torch pads no integers that way
    shapes = [(5, 4), (7, 4), (6, 6)] if pad_first else [(5, 6)] * 3
    images = [pixels(*lead, channels, *shape, dtype=kind) for shape in shapes]
    padding = Padding(size_divisor=4, value=0 if mode == "replicate" else 42, mode=mode)
    for swap in (False, True) if channels > 1 else (False,):
        options = {"swap": swap, "pad_first": pad_first}
        out = stack_images(images, mean, std, padding, **options)
        eager = stack_images_reference(images, normalizer(mean, std), padding, **options)
        assert out.shape == (3, *lead, channels, 8, 8)
        assert torch.equal(out, eager)


def test_images_are_not_written_to():
    image = pixels(3, 3, 3)
    before = image.clone()
    stack_images([image, pixels(3, 5, 5)], MEAN, STD, Padding(), swap=True, pad_first=True)
    assert torch.equal(image, before)


def test_other_padding_modes_take_integers_too():
    out = stack_images(
        [pixels(3, 3, 3)], [0.0], [1.0], Padding(4, mode="reflect"), swap=False, pad_first=True
    )
    assert torch.equal(out[..., 3], out[..., 1])


def test_padding_sizes():
    batch = torch.zeros(2, 3, 8, 8)
    assert padding_size(torch.zeros(3, 5, 8), batch, True).tolist() == [0, 3, 0]
    assert padding_size(torch.zeros(2, 3, 5, 8), batch, True).tolist() == [0, 0, 3, 0]
    assert padding_size(torch.zeros(2, 3, 5, 8), batch, False).tolist() == [0, 3, 0]
    same, other = torch.tensor([0.0, 1, 2]), torch.tensor([0.0, 1, 3])
    check_equal_padding({"img": [same, other], "clip": [torch.tensor([0.0, 0, 1, 2]), other]})
    with pytest.raises(ValueError, match=r"sample 1: 'AA' was padded by .*3.* but 'img' by .*2"):
        check_equal_padding({"img": [same, same], "AA": [same, other]})


@pytest.mark.cuda
def test_cuda_gives_the_same_bits():
    images = [pixels(3, 5, 4), pixels(3, 7, 6)]
    options = {"swap": True, "pad_first": True}
    host = stack_images(images, MEAN, STD, Padding(4, 9), **options)
    device = stack_images([x.cuda() for x in images], MEAN, STD, Padding(4, 9), **options)
    assert torch.equal(device.cpu(), host)
