"""ConcatDataset and RepeatDataset: which samples, whose random streams, and metainfo that has to agree."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.utils.data import TensorDataset

from segfast.datasets import (
    BaseSegDataset,
    ConcatDataset,
    RepeatDataset,
    SampleKey,
    ShapesDataset,
    build_dataloader,
)
from segfast.errors import ConfigError, DataError
from segfast.registry import DATASETS

ABC = {"classes": ["a", "b", "c"]}


@pytest.fixture
def parts(make_folder, mask, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    make_folder({s: mask for s in "ab"}, folder=folders[0])
    make_folder({s: mask for s in "xyz"}, folder=folders[1])
    return [dict(type="BaseSegDataset", data_root=f, metainfo=ABC, pipeline=[]) for f in folders]


def name(sample):
    return sample["img_path"].rsplit("/", 1)[1][0]


def test_one_behind_the_other(parts):
    data = DATASETS.build({"type": "ConcatDataset", "datasets": parts})
    assert len(data) == 5
    assert data.cumulative_sizes == [2, 5]
    assert [name(data[i]) for i in range(5)] == list("abxyz")
    assert [name(data[i]) for i in (-1, -5)] == ["z", "a"]
    assert data.get_data_info(3)["img_path"].endswith("two/images/y.jpg")
    assert data.metainfo["classes"] == ABC["classes"]
    data.metainfo["classes"].clear()
    assert data.metainfo["classes"] == ABC["classes"]
    for wrong in (5, -6):
        with pytest.raises(IndexError, match="there are 5 samples"):
            data[wrong]


def test_metainfo_has_to_agree(parts):
    parts[1]["metainfo"] = {"classes": ("a", "b", "c")}  # a tuple says the same
    assert len(ConcatDataset(parts)) == 5
    parts[1]["metainfo"] = {"classes": ["a", "b", "d"]}
    with pytest.raises(
        ConfigError, match=r"train\.datasets\.1\.metainfo: classes is \['a', 'b', 'd"
    ):
        DATASETS.build({"type": "ConcatDataset", "datasets": parts}, path="train")
    assert len(ConcatDataset(parts, ignore_keys="classes")) == 5
    assert len(ConcatDataset([*parts, parts[0]], ignore_keys=["classes", "palette"])) == 7
    for wrong in ([], 3):
        with pytest.raises(ConfigError, match="datasets: expected a list of data sets"):
            ConcatDataset(wrong)


def test_several_times_over(parts):
    data = DATASETS.build({"type": "RepeatDataset", "times": 3, "dataset": parts[0]})
    assert len(data) == 6
    assert [name(data[i]) for i in range(6)] == list("ababab")
    assert name(data[-1]) == "b"
    assert data.get_data_info(4)["sample_idx"] == 0
    assert data.metainfo["classes"] == ABC["classes"]
    with pytest.raises(IndexError):
        data[6]
    with pytest.raises(ConfigError, match="times: expected a positive whole number, got 0"):
        RepeatDataset(parts[0], 0)


def test_random_streams_are_those_of_passes(parts):
    draw = lambda data, *key: data[SampleKey(*key)]["rng"].random()  # noqa: E731
    one, two = map(DATASETS.build, parts)
    both, often = ConcatDataset([one, two]), RepeatDataset(two, 4)
    assert draw(both, 3, 5, 7) == draw(two, 1, 5, 7)
    assert draw(often, 0, 1, 7) == draw(two, 0, 4, 7)
    assert draw(often, 11, 1, 7) == draw(two, 2, 7, 7)
    streams = {draw(often, index, epoch, 7) for index in range(12) for epoch in range(2)}
    assert len(streams) == 24
    assert both[4]["rng"].random() != both[4]["rng"].random()  # plain ints go on


def test_files_are_listed_at_the_first_use(tmp_path):
    missing = {"data_root": tmp_path / "no", "lazy_init": True, "metainfo": ABC}
    for data in (
        ConcatDataset([BaseSegDataset(**missing)], lazy_init=True),
        RepeatDataset(BaseSegDataset(**missing), 2, lazy_init=True),
    ):
        with pytest.raises(DataError, match="no such folder"):
            len(data)
    with pytest.raises(DataError):
        ConcatDataset([BaseSegDataset(**missing)])
    with pytest.raises(DataError):
        RepeatDataset(BaseSegDataset(**missing), 2)


def test_a_loader_over_wrapped_data():
    shapes = {"type": "ShapesDataset", "num_images": 3, "size": 32}
    both = {"type": "ConcatDataset", "datasets": [shapes] * 2}
    cfg = {"type": "RepeatDataset", "times": 2, "dataset": both}
    loader = build_dataloader({"batch_size": 4, "dataset": cfg}, seed=0)
    assert sum(len(batch["data_samples"]) for batch in loader) == 12


def test_other_data_sets(parts):
    first, second = ShapesDataset(3, size=32), ShapesDataset(2, size=32, seed=1)
    both = ConcatDataset([first, second])
    assert torch.equal(both[4]["inputs"], second[1]["inputs"])
    plain = TensorDataset(torch.arange(2))
    often = RepeatDataset(ConcatDataset([plain]), 2)
    assert [int(often[i][0]) for i in range(4)] == [0, 1, 0, 1]
    assert often.metainfo == {}
