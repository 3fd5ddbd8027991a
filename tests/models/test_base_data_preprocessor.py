"""BaseDataPreprocessor: any structure comes through, samples are rebuilt, tensors are not."""

# SPDX-License-Identifier: Apache-2.0

import collections
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from segfast.models import BaseDataPreprocessor, BaseModel, SegDataPreProcessor
from segfast.structures import DataSample, PixelData, SegDataSample

Point = collections.namedtuple("Point", "x y")
META = torch.device("meta")


def test_attributes():
    module = BaseDataPreprocessor()
    assert module._non_blocking is False
    assert module._device == module.device == torch.device("cpu")
    assert BaseDataPreprocessor(non_blocking=True)._non_blocking is True
    with pytest.raises(AttributeError):
        module.device = META


def test_any_structure():
    module, x = BaseDataPreprocessor(), torch.ones(1)
    thing = object()
    for data in (
        {"inputs": [x], "data_samples": [None]}, {"string": "abc"}, (x, [x, {"a": x}]), [x], Point(x, 1), x, None,
        "abc", b"abc", 3, thing,
    ):  # fmt: skip
        assert module(data) == module(data, training=True)
        assert type(module(data)) is type(data)
    assert module({"a": [x]})["a"][0] is x
    assert module(thing) is thing
    assert type(module(collections.OrderedDict(a=1))) is dict
    array = np.ones(2)
    assert module([array])[0] is array


@pytest.mark.parametrize("kind", [SegDataSample, DataSample])
def test_samples_are_rebuilt_even_where_nothing_moves(kind):
    pixels = PixelData(data=torch.ones(1, 2, 2))
    sample = kind(metainfo={"tags": ["a"]}, extra=pixels, x=torch.ones(1))
    batch = [sample, sample]
    first, second = BaseDataPreprocessor()(batch)
    assert sample is not first is not second
    assert first.x is sample.x
    assert first.extra is not sample.extra
    assert first.extra.data is pixels.data
    del first.extra.data
    first.tags.append("b")
    first.added = 1
    for other in (sample, second):
        assert other.extra.data.shape == (1, 2, 2)
        assert other.tags == ["a"]
        assert "added" not in other


def test_tensors_and_samples_move():
    module = BaseDataPreprocessor().to("meta")
    out = module({"x": torch.ones(2), "s": DataSample(y=torch.ones(2), text="abc")})
    assert out["x"].device == out["s"].y.device == META
    assert out["s"].text == "abc"


class Nested(BaseModel):
    """A model with a preprocessor of its own inside."""

    def __init__(self):
        super().__init__(SegDataPreProcessor())
        self.layer = nn.Linear(1, 1)
        self.inner = nn.Sequential(BaseDataPreprocessor(), nn.Linear(1, 1))

    def forward(self, *args, mode="tensor"):
        raise NotImplementedError


class TestDevices:
    FORMS: ClassVar = [
        # arguments of `to`, keywords, device and dtype after it
        ((), {}, "cpu", None),
        (("meta",), {}, "meta", None),
        ((META,), {}, "meta", None),
        ((), {"device": "meta"}, "meta", None),
        ((), {"device": META}, "meta", None),
        ((torch.float64,), {}, "cpu", torch.float64),
        ((), {"dtype": torch.float64}, "cpu", torch.float64),
        (("meta", torch.float64), {}, "meta", torch.float64),
        (("meta",), {"dtype": torch.float64}, "meta", torch.float64),
        ((), {"device": META, "dtype": torch.float64}, "meta", torch.float64),
        ((torch.empty(0, device="meta", dtype=torch.float64),), {}, "meta", torch.float64),
    ]

    @pytest.mark.parametrize(("args", "kwargs", "device", "dtype"), FORMS)
    def test_forms_of_to(self, args, kwargs, device, dtype):
        if not args and not kwargs:
            kwargs = {"non_blocking": True}  # torch wants something
        module = BaseDataPreprocessor()
        assert module.to(*args, **kwargs) is module
        assert module.device == torch.device(device)
        model = Nested()
        assert model.to(*args, **kwargs) is model
        assert model.data_preprocessor.device == model.inner[0].device == torch.device(device)
        assert model.layer.weight.device == torch.device(device)
        assert model.layer.weight.dtype == (dtype or torch.float32)

    def test_back_to_the_cpu(self):
        model = Nested()
        model._set_device(META)
        assert model.cpu().inner[0].device == torch.device("cpu")

    @pytest.mark.cuda
    @pytest.mark.parametrize("index", [None, 0])
    def test_cuda(self, index):
        expected = torch.device("cuda") if index is None else torch.device("cuda", 0)
        model = Nested().cuda(index)
        assert model.data_preprocessor.device == model.inner[0].device == expected
        assert model.layer.weight.is_cuda
        assert BaseDataPreprocessor().cuda(index).device == expected
