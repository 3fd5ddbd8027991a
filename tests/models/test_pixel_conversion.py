"""From a network's output back to pixels: normalisation, channel order, padding."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from segfast.models import DataPreprocessor
from segfast.models.channel_order import channel_index, channel_order
from segfast.structures import DataSample


def test_channel_index():
    for shape, index in (((5, 3), 1), ((3, 5, 5), 0), ((2, 3, 5, 5), 1), ((2, 4, 3, 5, 5), 2)):
        assert channel_index(torch.zeros(shape)) == index
    with pytest.raises(AssertionError, match=r"got \(1, 1, 1, 1, 1, 1\)"):
        channel_index(torch.zeros([1] * 6))


def test_channel_order_of_a_stacked_sample():
    one = DataSample(metainfo={"AA_channel_order": "RGB"})
    other = DataSample(metainfo={"AA_channel_order": "BGR"})
    image = torch.zeros(3, 5, 5)
    assert channel_order("AA", image, DataSample.stack([one, one])) == "RGB"
    with pytest.raises(AssertionError, match="expected one AA_channel_order"):
        channel_order("AA", image, DataSample.stack([one, other]))
    assert channel_order("gt_img", image, DataSample(metainfo={"gt_channel_order": "RGB"})) == "RGB"
    assert channel_order("img", image) == "BGR"


def test_conversion():
    convert = DataPreprocessor()._do_conversion
    x = torch.rand(2, 3, 5, 5)
    for source, target in (("RGB", "BGR"), ("BGR", "RGB")):
        out, order = convert(x, source, target)
        assert torch.equal(out, x[:, [2, 1, 0]])
        assert order == target
        assert convert(x, source, None) == (x, source)
        assert convert(x, source, source)[0] is x
    alpha = torch.rand(2, 4, 5, 5)
    assert torch.equal(convert(alpha, "RGB", "BGR")[0], alpha[:, [2, 1, 0, 3]])
    clip = torch.rand(1, 10, 1, 5, 5)
    assert convert(clip, "single", "BGR") == (clip, "single")
    with pytest.raises(ValueError, match="RGBA"):
        convert(x, "RGBA", "RGB")


@pytest.mark.parametrize("form", ["list", "stacked", "one"])
def test_denormalise_and_convert(form):
    metainfo = {
        "img_output_channel_order": "RGB", "AA_output_channel_order": "single", "BB_output_channel_order": "BGR",
    }  # fmt: skip
    given = [DataSample(metainfo=metainfo) for _ in range(2)]
    lead = () if form == "one" else (2,)
    given = {"list": given, "stacked": DataSample.stack(given), "one": given[0]}[form]
    undo = DataPreprocessor()._destruct_norm_and_conversion
    for key, channels in (("img", 3), ("AA", 1), ("BB", 3)):
        x = torch.randn(*lead, channels, 5, 5)
        pixels = x * 127.5 + 127.5
        out = undo(x, given, key)
        torch.testing.assert_close(out, pixels.flip(-3) if key == "img" else pixels)
    plain = DataPreprocessor(mean=None, std=None)._destruct_norm_and_conversion
    x = torch.randn(*lead, 3, 5, 5)
    assert torch.equal(plain(x, given, "img"), x.flip(-3))


def test_padding_is_cut_as_the_first_sample_says_or_one_by_one():
    unpad = DataPreprocessor()._destruct_padding
    sizes = [torch.tensor([0.0, 2, 0]), torch.tensor([0.0, 0, 2])]
    given = [DataSample(metainfo={"padding_size": size}) for size in sizes]
    x = torch.rand(2, 3, 5, 5)
    for form in (given, DataSample.stack(given)):
        assert torch.equal(unpad(x, form), x[:, :, :3])
        first, second = unpad(x, form, same_padding=False)
        assert torch.equal(first, x[0, :, :3])
        assert torch.equal(second, x[1, :, :, :3])
    assert torch.equal(unpad(x[0], given[0], False), x[0, :, :3])


def test_without_a_padding_size():
    module = DataPreprocessor()
    x = torch.rand(2, 3, 5, 5)
    for form in (None, DataSample(), [DataSample(), DataSample()]):
        assert module._destruct_padding(x, form) is x
    module({"inputs": [torch.zeros(3, 5, 5), torch.zeros(3, 4, 5)]})
    with pytest.warns(UserWarning, match="no padding_size"):
        module._destruct_padding(x, DataSample())


@pytest.mark.parametrize("order", [None, "RGB", "BGR"])
@pytest.mark.parametrize(
    "numbers", [(127.5, 127.5), ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])]
)
def test_destruct_undoes_forward(order, numbers):
    module = DataPreprocessor(*numbers, output_channel_order=order, pad_size_divisor=8)
    images = [torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8) for _ in range(2)]
    out = module({"inputs": images})
    assert out["inputs"].shape == (2, 3, 8, 8)
    back = module.destruct(out["inputs"], out["data_samples"])
    torch.testing.assert_close(back, torch.stack(images).float(), rtol=1e-5, atol=1e-4)


def test_destruct_clamps_a_new_tensor():
    x = torch.tensor([-1.0, 300.0]).view(2, 1, 1, 1)
    out = DataPreprocessor(mean=None, std=None).destruct(x)
    assert out.flatten().tolist() == [0, 255]
    assert x.flatten().tolist() == [-1, 300]
    given = [DataSample(metainfo={"padding_size": torch.zeros(3)}) for _ in range(2)]
    parts = DataPreprocessor(mean=None, std=None).destruct(x, given, same_padding=False)
    assert [part.item() for part in parts] == [0, 255]


def test_output_view():
    module = DataPreprocessor([1, 2, 3], [1, 1, 1], output_view=(1, -1))
    assert module.destruct(torch.zeros(5, 3))[4].tolist() == [1, 2, 3]
