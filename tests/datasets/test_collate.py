"""Both collate functions, leaf by leaf."""

# SPDX-License-Identifier: Apache-2.0
import collections

import numpy as np
import pytest
import torch

from segfast.datasets import default_collate, pseudo_collate
from segfast.registry import FUNCTIONS
from segfast.structures import SegDataSample

Point = collections.namedtuple("Point", "x y")


class Custom(dict):
    pass


def test_pseudo_collate_keeps_the_same_objects():
    samples = [{"inputs": torch.zeros(3, n, 2), "data_samples": SegDataSample()} for n in (1, 2)]
    batch = pseudo_collate(samples)
    assert list(batch) == ["inputs", "data_samples"]
    for key in batch:
        assert all(a is b[key] for a, b in zip(batch[key], samples, strict=True))


@pytest.mark.parametrize("collate", [pseudo_collate, default_collate])
def test_containers_keep_their_kind(collate):
    sample = SegDataSample()
    assert collate([sample, sample]) == [sample, sample]
    assert collate(["a", "b"]) == ["a", "b"]
    assert collate([b"a", b"b"]) == [b"a", b"b"]
    assert isinstance(collate([Custom(a="x")]), Custom)
    assert collate([Point("a", "b"), Point("c", "d")]) == Point(("a", "c"), ("b", "d"))
    assert collate([("a", "b"), ("c", "d")]) == [("a", "c"), ("b", "d")]
    assert collate([["a"], ["c"]]) == [("a", "c")]


@pytest.mark.parametrize("collate", [pseudo_collate, default_collate])
def test_unequal_samples_are_errors(collate):
    with pytest.raises(RuntimeError, match="equal size"):
        collate([["a"], ["b", "c"]])
    with pytest.raises(KeyError, match="b"):
        collate([{"a": "x", "b": "x"}, {"a": "x"}])
    assert list(collate([{"a": "x"}, {"a": "x", "b": "x"}])) == ["a"]


def test_default_collate_stacks_leaves():
    batch = default_collate([{"t": torch.zeros(2), "n": 1, "a": np.ones(3)} for _ in range(4)])
    assert batch["t"].shape == (4, 2)
    assert batch["n"].tolist() == [1, 1, 1, 1]
    assert batch["a"].shape == (4, 3)


def test_pseudo_collate_lists_numbers():
    assert pseudo_collate([{"n": 1}, {"n": 2.5}]) == {"n": [1, 2.5]}


def test_leaves_of_sequences_are_tuples_of_the_same_objects():
    x, y = torch.zeros(2), torch.ones(3)
    batch = pseudo_collate([(x, 0), (y, 1)])
    assert isinstance(batch, list)
    assert isinstance(batch[0], tuple)
    assert batch[0][0] is x
    assert batch[1] == (0, 1)
    assert default_collate([(x, 0), (x, 1)])[1].tolist() == [0, 1]


def test_both_are_registered():
    assert FUNCTIONS.get("pseudo_collate") is pseudo_collate
    assert FUNCTIONS.get("default_collate") is default_collate
