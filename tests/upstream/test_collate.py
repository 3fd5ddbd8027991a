"""pseudo_collate and default_collate beside MMEngine's, on random nested samples."""

# SPDX-License-Identifier: Apache-2.0
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch

from segfast.datasets import default_collate, pseudo_collate
from segfast.structures import BaseDataElement, SegDataSample

pytest.importorskip("hypothesis")
utils = pytest.importorskip("mmengine.dataset.utils")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mmengine.structures import BaseDataElement as TheirElement  # noqa: E402

Pair = namedtuple("Pair", ["first", "second"])
LEAVES = ["tensor", "array", "int", "float", "string", "bytes", "element"]


class Sequence2(list):
    """A sequence type of its own."""


TEMPLATES = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=2).map(OrderedDict),
        st.tuples(inner, inner),
        st.tuples(inner, inner).map(lambda pair: Pair(*pair)),
        st.lists(inner, min_size=1, max_size=3),
        st.lists(inner, min_size=1, max_size=2).map(Sequence2),
    ),
    max_leaves=6,
)


def fill(template, ours):
    """A sample of the template's structure with random leaves; elements are of one package or the other."""
    if isinstance(template, dict):
        return type(template)((k, fill(v, ours)) for k, v in template.items())
    if isinstance(template, Pair):
        return Pair(*(fill(v, ours) for v in template))
    if isinstance(template, (list, tuple)):
        return type(template)(fill(v, ours) for v in template)
    number = torch.randint(0, 100, ()).item()
    return {
        "tensor": lambda: torch.full((2, 3), number),
        "array": lambda: np.full((2, 3), number),
        "int": lambda: number,
        "float": lambda: number / 4,
        "string": lambda: str(number),
        "bytes": lambda: str(number).encode(),
        "element": lambda: (SegDataSample if ours else TheirElement)(metainfo={"number": number}),
    }[template]()


def spoil(how, batch):
    """Make the last sample disagree with the first."""
    if how == "longer" and isinstance(batch[-1], list):
        batch[-1].append(0)
    if how == "lacks" and isinstance(batch[-1], dict):
        batch[-1].pop(next(iter(batch[-1])))
    return batch


def outcome(collate, batch):
    try:
        return "returns", collate(batch)
    except Exception as error:
        return "raises", type(error)


def assert_same(ours, theirs):
    if isinstance(theirs, TheirElement):
        assert isinstance(ours, BaseDataElement)
        assert ours.metainfo == theirs.metainfo
        return
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)
    elif isinstance(theirs, (torch.Tensor, np.ndarray)):
        assert ours.dtype == theirs.dtype
        assert ours.tolist() == theirs.tolist()
    else:
        assert ours == theirs


@pytest.mark.parametrize("name", ["pseudo_collate", "default_collate"])
@settings(max_examples=300)
@given(TEMPLATES, st.integers(1, 4), st.sampled_from([None, None, "longer", "lacks"]), st.integers(0, 2**31))  # fmt: skip
def test_collate(name, template, count, how, seed):
    ours, theirs = {"pseudo_collate": pseudo_collate, "default_collate": default_collate}[name], getattr(utils, name)  # fmt: skip
    results = []
    for is_ours, collate in ((True, ours), (False, theirs)):
        torch.manual_seed(seed)
        batch = [fill(template, is_ours) for _ in range(count)]
        results.append(outcome(collate, spoil(how, batch)))
    (mine_how, mine), (other_how, other) = results
    assert mine_how == other_how
    if mine_how == "raises":
        assert mine is other
    else:
        assert_same(mine, other)


def test_pseudo_collate_keeps_the_very_objects():
    first, second = torch.zeros(2), torch.zeros(3)
    for collate in (pseudo_collate, utils.pseudo_collate):
        batch = collate([{"inputs": first}, {"inputs": second}])
        assert batch["inputs"][0] is first
        assert batch["inputs"][1] is second
