"""Samplers: order from (seed, epoch), shares of each process, and resuming without a replay."""

# SPDX-License-Identifier: Apache-2.0
import collections
import itertools
import pickle

import pytest
import torch
from torch.utils.data import ConcatDataset

from segfast.datasets import DefaultSampler, InfiniteSampler, SampleKey

SIZE = 10


def take(sampler, count):
    return list(itertools.islice(iter(sampler), count))


def of_rank(monkeypatch, rank, world_size, kind=DefaultSampler, size=SIZE, **kwargs):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: rank)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: world_size)
    return kind(range(size), seed=0, **kwargs)


def test_default_order():
    generator = torch.Generator().manual_seed(3 + 2)
    sampler = DefaultSampler(range(SIZE), seed=3)
    sampler.set_epoch(2)
    assert list(sampler) == torch.randperm(SIZE, generator=generator).tolist()
    assert list(DefaultSampler(range(SIZE), shuffle=False)) == list(range(SIZE))
    assert len(sampler) == SIZE


def test_default_shares_are_disjoint_and_rounded_up(monkeypatch):
    shares = [list(of_rank(monkeypatch, rank, 4)) for rank in range(4)]
    assert [len(share) for share in shares] == [3, 3, 3, 3]
    assert set(itertools.chain(*shares)) == set(range(SIZE))
    exact = [list(of_rank(monkeypatch, rank, 4, round_up=False)) for rank in range(4)]
    assert sorted(itertools.chain(*exact)) == list(range(SIZE))
    assert [len(of_rank(monkeypatch, r, 4, round_up=False)) for r in range(4)] == [3, 3, 2, 2]
    few = [list(of_rank(monkeypatch, rank, 4, size=1)) for rank in range(4)]
    assert few == [[0]] * 4


def test_default_resumes_within_an_epoch():
    whole = DefaultSampler(range(SIZE), seed=1)
    whole.set_epoch(4)
    resumed = DefaultSampler(range(SIZE), seed=1)
    resumed.set_epoch(4)
    resumed.advance(7)
    expected = list(whole)
    assert list(resumed) == expected[7:]
    assert list(resumed) == expected  # later passes start at the beginning
    assert len(resumed) == SIZE


def test_infinite_passes_are_whole_and_differ():
    keys = take(InfiniteSampler(range(SIZE), seed=0), 3 * SIZE)
    passes = [keys[k : k + SIZE] for k in (0, SIZE, 2 * SIZE)]
    assert all(sorted(one) == list(range(SIZE)) for one in passes)
    assert passes[0] != passes[1]
    assert [key.epoch for key in keys] == [0] * SIZE + [1] * SIZE + [2] * SIZE
    assert take(InfiniteSampler(range(3), shuffle=False), 7) == [0, 1, 2, 0, 1, 2, 0]
    assert len(InfiniteSampler(range(SIZE))) == SIZE
    assert list(InfiniteSampler([])) == []


@pytest.mark.parametrize("world_size", [1, 3, 4, 13])
def test_infinite_ranks_deal_one_stream(monkeypatch, world_size):
    stream = take(InfiniteSampler(range(SIZE), seed=0), 60 * world_size)
    for rank in range(world_size):
        share = take(of_rank(monkeypatch, rank, world_size, InfiniteSampler), 50)
        expected = stream[rank::world_size][:50]
        assert share == expected
        assert [key.epoch for key in share] == [key.epoch for key in expected]


@pytest.mark.parametrize("world_size", [1, 3, 13])
@pytest.mark.parametrize("done", [0, 1, 9, 10, 37])
def test_infinite_resumes_anywhere(monkeypatch, world_size, done):
    whole = take(of_rank(monkeypatch, 0, world_size, InfiniteSampler), done + 30)
    resumed = of_rank(monkeypatch, 0, world_size, InfiniteSampler)
    resumed.advance(done * world_size)
    assert take(resumed, 30) == whole[done:]
    assert [k.epoch for k in take(resumed, 30)] == [k.epoch for k in whole[done:]]


@pytest.mark.parametrize("kind", [DefaultSampler, InfiniteSampler])
def test_other_processes_go_on_where_some_stopped(monkeypatch, kind):
    stream = take(of_rank(monkeypatch, 0, 1, kind), SIZE)
    resumed = [of_rank(monkeypatch, rank, 3, kind) for rank in range(3)]
    for sampler in resumed:
        sampler.advance(4)
    shares = [take(sampler, 2) for sampler in resumed]
    assert [shares[i % 3][i // 3] for i in range(SIZE - 4)] == stream[4:]
    if kind is DefaultSampler:  # the second pass is whole again, and padded to whole rounds
        assert [len(list(sampler)) for sampler in resumed] == [4, 4, 4]


def test_a_missing_seed_is_drawn():
    seeds = {InfiniteSampler(range(SIZE)).seed for _ in range(5)}
    assert len(seeds) == 5


def test_keys_are_ints_that_survive_pickling_and_batching():
    key = SampleKey(3, epoch=5, seed=7)
    assert key == 3
    assert ["a", "b", "c", "d"][key] == "d"
    copy = pickle.loads(pickle.dumps(key))
    assert (copy, copy.epoch, copy.seed) == (3, 5, 7)


def test_keys_pass_through_concatenated_datasets():
    Item = collections.namedtuple("Item", "index epoch")

    class Echo(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return Item(int(index), index.epoch)

    both = ConcatDataset([Echo(), Echo()])
    assert both[SampleKey(2, epoch=5)] == (2, 5)
    assert both[SampleKey(6, epoch=5)] == (2, 5)
