"""build_dataloader: keys, defaults, reproducible batches, and errors out of worker processes."""

# SPDX-License-Identifier: Apache-2.0
import contextlib
import gc
import itertools
import multiprocessing
import traceback

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from segfast.datasets import (
    BaseSegDataset,
    DefaultSampler,
    InfiniteSampler,
    build_dataloader,
    default_collate,
)
from segfast.errors import ConfigError, DataError

AUGMENT = [
    dict(type="RandomResize", scale=(96, 96), ratio_range=(0.5, 2.0)),
    dict(type="RandomCrop", crop_size=32),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
SHAPES = dict(type="ShapesDataset", num_images=10, size=48, pipeline=AUGMENT)


def batches(count, **options):
    loader = build_dataloader(
        dict(dataset=SHAPES, batch_size=3, **options), seed=5, default_sampler="InfiniteSampler"
    )
    return list(itertools.islice(loader, count))


def pixels(batch):
    labels = [sample.gt_sem_seg.data for sample in batch["data_samples"]]
    return torch.cat([torch.stack(batch["inputs"]).flatten(), torch.stack(labels).flatten()])


def raised_by(loader):
    """Type and text of the error; its frames are cleared, so that the workers can end at once."""
    try:
        list(loader)
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        return type(error), str(error)
    return None, ""


def test_defaults():
    loader = build_dataloader(dict(dataset=SHAPES), seed=5)
    assert isinstance(loader, DataLoader)
    assert isinstance(loader.sampler, DefaultSampler)
    assert loader.sampler.seed == 5
    assert loader.batch_size == 1
    assert len(loader) == len(loader.dataset) == 10
    batch = next(iter(loader))
    assert [type(value) for value in batch.values()] == [list, list]
    assert build_dataloader(loader) is loader


def test_samplers_and_collate_from_config():
    cfg = dict(dataset=SHAPES, sampler=dict(type="InfiniteSampler", shuffle=False, seed=1))
    loader = build_dataloader({**cfg, "collate_fn": dict(type="default_collate")}, seed=5)
    assert isinstance(loader.sampler, InfiniteSampler)
    assert (loader.sampler.shuffle, loader.sampler.seed) == (False, 1)
    assert next(iter(loader))["inputs"].shape == (1, 3, 32, 32)
    loader = build_dataloader({**cfg, "collate_fn": default_collate}, seed=5)
    assert loader.collate_fn is default_collate
    quiet = dict(type="DefaultSampler", shuffle=False)
    loader = build_dataloader(dict(dataset=SHAPES), seed=5, default_sampler=quiet)
    assert (loader.sampler.shuffle, loader.sampler.seed) == (False, 5)
    batch_sampler = dict(type="torch.utils.data.BatchSampler", drop_last=True)
    cfg = dict(dataset=SHAPES, batch_size=4, batch_sampler=batch_sampler)
    assert len(build_dataloader(cfg, seed=5)) == 2


def test_batches_do_not_depend_on_the_workers():
    alone, one, two = (batches(8, num_workers=n) for n in (0, 1, 2))
    for first, second, third in zip(alone, one, two, strict=True):
        assert torch.equal(pixels(first), pixels(second))
        assert torch.equal(pixels(first), pixels(third))


def test_every_pass_augments_anew():
    seen = {}
    for batch in batches(20):
        for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
            seen.setdefault(sample.img_path, set()).add(image.numpy().tobytes())
    assert len(seen) == 10
    assert all(len(versions) == 6 for versions in seen.values())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resuming_continues_where_the_run_stopped(num_workers):
    whole = batches(7)
    cfg = dict(dataset=SHAPES, batch_size=3, num_workers=num_workers)
    loader = build_dataloader(cfg, seed=5, default_sampler="InfiniteSampler")
    loader.sampler.advance(5 * 3)
    for expected, batch in zip(whole[5:], loader, strict=False):
        assert torch.equal(pixels(expected), pixels(batch))


def test_persistent_workers_see_the_next_epoch():
    loader = build_dataloader(dict(dataset=SHAPES, batch_size=5, num_workers=2), seed=5)
    first = [pixels(batch) for batch in loader]
    again = [pixels(batch) for batch in loader]
    loader.sampler.set_epoch(1)
    second = [pixels(batch) for batch in loader]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_views_keep_their_strides_through_a_worker():
    (batch,) = batches(1, num_workers=1)
    assert batch["inputs"][0].shape == (3, 32, 32)
    assert batch["inputs"][0].permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_data_errors_arrive_as_they_were_raised(make_folder, num_workers):
    folder = make_folder({f"{k:02d}": np.zeros((8, 8), np.uint8) for k in range(40)})
    path = folder / "masks" / "01.png"
    path.write_bytes(b"broken")
    dataset = BaseSegDataset(data_root=folder, metainfo={"classes": ["a"]})
    loader = build_dataloader(dict(dataset=dataset, batch_size=4, num_workers=num_workers), seed=0)
    assert loader.dataset is dataset
    kind, text = raised_by(loader)
    assert kind is DataError
    assert text.startswith(f"{path}: corrupt or truncated")
    assert "\n" not in text
    assert "Traceback" not in text


class Faulty(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise self.error


@pytest.mark.parametrize("error", [ConfigError("a.b", "wrong"), DataError("x.png: gone")])
def test_user_errors_of_any_dataset_arrive_whole(error):
    loader = build_dataloader(dict(dataset=Faulty(error), num_workers=1))
    assert raised_by(loader) == (type(error), str(error))


def test_defects_keep_their_traceback():
    loader = build_dataloader(dict(dataset=Faulty(RuntimeError("a defect")), num_workers=1))
    kind, text = raised_by(loader)
    assert kind is RuntimeError
    assert "Traceback" in text
    assert "a defect" in text


def test_workers_end_with_an_error():
    """They do not wait for the cycle collector, which would wait 5 s for each of them."""
    before = set(multiprocessing.active_children())
    loader = build_dataloader(dict(dataset=Faulty(DataError("gone")), num_workers=1))
    gc.disable()
    try:
        with contextlib.suppress(DataError):
            next(iter(loader))
        del loader
        assert set(multiprocessing.active_children()) <= before
    finally:
        gc.enable()


def test_num_batch_per_epoch_uses_the_first_samples():
    cfg = dict(dataset=SHAPES, batch_size=3, num_batch_per_epoch=2)
    loader = build_dataloader(cfg, seed=0)
    assert len(loader) == 2
    assert len(loader.dataset) == 6
    assert loader.dataset.metainfo["classes"][1] == "circle"
    assert len(list(loader)) == 2


def test_worker_options_are_left_out_without_workers():
    options = dict(num_workers=0, persistent_workers=True, prefetch_factor=4)
    assert not build_dataloader(dict(dataset=SHAPES, **options)).persistent_workers
    loader = build_dataloader(dict(dataset=SHAPES, **{**options, "num_workers": 1}))
    assert loader.persistent_workers
    assert loader.prefetch_factor == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(batchsize=2), r"^train\.batchsize: .*did you mean batch_size"),
        (dict(shuffle=True), r"^train\.shuffle: .*say it to the sampler"),
        (dict(dataset=None), r"^train\.dataset: missing"),
        (dict(dataset=dict(type="Shapes")), r"^train\.dataset\.type: .*did you mean ShapesDataset"),
        (dict(dataset={**SHAPES, "num": 3}), r"^train\.dataset\.num: ShapesDataset has no such"),
        (dict(batch_size=0), r"^train\.batch_size: expected a whole number of at least 1, got 0"),
        (dict(num_workers="2"), r"^train\.num_workers: expected a whole number"),
        (dict(sampler=dict(type="Infinite")), r"^train\.sampler\.type: unknown sampler"),
        (dict(sampler=dict(type="DefaultSampler", suffle=1)), r"^train\.sampler\.suffle: "),
        (dict(collate_fn="pseudo"), r"^train\.collate_fn: unknown function 'pseudo'"),
        (dict(num_workers=1, timeout=-1), r"^train: timeout option should be non-negative"),
    ],
)
def test_wrong_configs_name_the_key(change, message):
    with pytest.raises(ConfigError, match=message):
        build_dataloader({"dataset": SHAPES, **change}, path="train")
