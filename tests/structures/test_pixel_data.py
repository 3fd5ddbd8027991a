"""PixelData: one height and width for all maps."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from segfast.structures import PixelData


def test_two_dimensions_become_three_with_a_warning():
    pixels = PixelData()
    assert pixels.shape is None
    with pytest.warns(UserWarning, match=r"stored as \(1, 4, 5\)"):
        pixels.data = torch.zeros(4, 5)
    assert pixels.data.shape == (1, 4, 5)
    assert pixels.shape == (4, 5)


def test_all_fields_share_height_and_width():
    pixels = PixelData(data=torch.zeros(1, 4, 5))
    pixels.logits = np.zeros((3, 4, 5))
    with pytest.raises(AssertionError, match=r"\(4, 6\)"):
        pixels.other = torch.zeros(1, 4, 6)
    del pixels.data, pixels.logits
    pixels.data = torch.zeros(1, 8, 8)
    assert pixels.shape == (8, 8)


@pytest.mark.parametrize("value", ["text", [[1]], 3])
def test_only_tensors_and_arrays(value):
    with pytest.raises(AssertionError, match="should be a tensor or array"):
        PixelData(data=value)


def test_only_two_or_three_dimensions():
    with pytest.raises(AssertionError, match=r"\(C, H, W\)"):
        PixelData(data=torch.zeros(1, 1, 4, 5))


def test_slicing_crops_every_field_and_ints_keep_the_dimension():
    data = torch.arange(20).view(1, 4, 5)
    pixels = PixelData(metainfo={"k": 1}, data=data, other=data.numpy())
    window = pixels[1:3, 2:]
    assert window.shape == (2, 3)
    assert window.k == 1
    torch.testing.assert_close(window.data, data[:, 1:3, 2:])
    assert pixels[2, 3].data.tolist() == [[[13]]]
    assert pixels[-1, -2].other.tolist() == [[[18]]]


def test_slicing_rejects_other_indices():
    pixels = PixelData(data=torch.zeros(1, 4, 5))
    with pytest.raises(TypeError, match=r"Unsupported type .* for slicing PixelData"):
        pixels[0]
    with pytest.raises(TypeError, match="The type of element in input must be int or slice"):
        pixels[[0, 1], 0]
    with pytest.raises(AssertionError, match="height and width"):
        pixels[0, 0, 0]
