"""What every batch and every loss passes through, side by side with mmengine: cast_data, preprocessing, the sum."""

# SPDX-License-Identifier: Apache-2.0

import collections

import numpy as np
import pytest
import torch

from segfast.models import BaseModel, ImgDataPreprocessor

pytest.importorskip("mmengine")
pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.model import BaseModel as TheirModel
from mmengine.model import ImgDataPreprocessor as TheirPreprocessor

Pair = collections.namedtuple("Pair", "a b")


def outcome(function, *args):
    """What a call returns, or the kind of error it raises."""
    try:
        return function(*args)
    except Exception as error:
        return type(error)


class Model(BaseModel):
    def forward(self, *args, mode="tensor", **kwargs):
        return args, kwargs, mode


class Theirs(TheirModel):
    def forward(self, *args, mode="tensor", **kwargs):
        return args, kwargs, mode


NUMBERS = st.floats(-4, 4, width=16)
TENSORS = st.one_of(
    NUMBERS.map(torch.tensor), st.lists(NUMBERS, min_size=1, max_size=3).map(torch.tensor)
)
ENTRIES = st.one_of(
    TENSORS,
    TENSORS,
    st.lists(TENSORS, max_size=3),
    st.sampled_from([1.0, None, "text", (torch.ones(1),), [1.0], {"a": torch.ones(1)}]),
)
NAMES = st.sampled_from(["loss", "loss_a", "decode.loss_ce", "aux.myloss_x", "acc_seg", "LOSS"])


@settings(max_examples=300, deadline=None)
@given(losses=st.dictionaries(NAMES, ENTRIES, max_size=5))
def test_parse_losses(losses):
    ours, theirs = (outcome(m.parse_losses, losses) for m in (Model(), Theirs()))
    if isinstance(theirs, type):
        assert ours is theirs
        return
    assert type(ours[0]) is type(theirs[0])
    torch.testing.assert_close(torch.as_tensor(ours[0]), torch.as_tensor(theirs[0]))
    assert list(ours[1]) == list(theirs[1])
    for name, value in theirs[1].items():
        torch.testing.assert_close(torch.as_tensor(ours[1][name]), torch.as_tensor(value))


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), NUMBERS, st.text(max_size=2), st.binary(max_size=2),
    st.just(torch.ones(2)), st.just(np.ones(2)), st.just({1, 2}), st.just(object),
)  # fmt: skip
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.dictionaries(st.text(max_size=2), inner, max_size=2).map(collections.OrderedDict),
        st.tuples(inner, inner).map(lambda pair: Pair(*pair)),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(data=NESTED)
def test_cast_data_and_the_call_of_forward(data):
    results = [outcome(m.data_preprocessor.cast_data, data) for m in (Model(), Theirs())]
    assert describe(results[0]) == describe(results[1])
    calls = [outcome(m._run_forward, data, "predict") for m in (Model(), Theirs())]
    assert describe(calls[0]) == describe(calls[1])


def describe(value):
    """Types and values of a nested structure; tensors are the objects they are."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return id(value)
    if isinstance(value, dict):
        return type(value), [(key, describe(part)) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [describe(part) for part in value]
    return value


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_img_data_preprocessor_is_bit_identical(data):
    draw = data.draw
    three = st.sampled_from([[1, 2, 3], [123.675, 116.28, 103.53]])
    mean = draw(st.one_of(st.none(), st.just([127.5]), three))
    std = mean and draw(st.sampled_from([[58.0], [255], [58.395, 57.12, 57.375]]))
    colour = max(len(mean or []), len(std or [])) == 3
    channels = 3 if colour else draw(st.sampled_from([1, 3, 4]))
    dtype = draw(st.sampled_from([torch.uint8, torch.int64, torch.float32, torch.float16]))
    sizes = draw(st.lists(st.tuples(*[st.integers(1, 9)] * 2), min_size=1, max_size=3))
    inputs = [(torch.rand(channels, *size) * 255).to(dtype) for size in sizes]
    form = draw(st.sampled_from(["list", "tuple", "tensor"]))
    inputs = {"list": inputs, "tuple": tuple(inputs), "tensor": torch.stack(inputs[:1] * 2)}[form]
    options = {
        "mean": mean,
        "std": std,
        "pad_size_divisor": draw(st.sampled_from([1, 3, 8])),
        "pad_value": draw(st.sampled_from([0, 10, -1.5])),
        "bgr_to_rgb": channels == 3 and draw(st.booleans()),
    }
    ours, theirs = (
        kind(**options)({"inputs": inputs, "other": 1})
        for kind in (ImgDataPreprocessor, TheirPreprocessor)
    )
    assert list(ours) == list(theirs)
    assert ours["inputs"].dtype == theirs["inputs"].dtype
    assert torch.equal(ours["inputs"], theirs["inputs"])
