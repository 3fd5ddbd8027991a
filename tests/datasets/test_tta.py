"""TestTimeAug: which versions, in which order, and the whole way from files to a merged prediction."""

# SPDX-License-Identifier: Apache-2.0
import copy

import numpy as np
import pytest
import segmentor_parts  # noqa: F401  (registers the tiny parts)
import torch

from segfast import datasets
from segfast.datasets import BaseSegDataset, build_dataloader
from segfast.errors import ConfigError, DataError
from segfast.models import SegTTAModel
from segfast.registry import TRANSFORMS

RATIOS = (0.5, 1.0, 1.5)
# MMSegmentation's tta_pipeline.
PIPELINE = [
    {"type": "LoadImageFromFile"},
    {
        "type": "TestTimeAug",
        "transforms": [
            [{"type": "Resize", "scale_factor": r, "keep_ratio": True} for r in RATIOS],
            [
                {"type": "RandomFlip", "prob": 0.0, "direction": "horizontal"},
                {"type": "RandomFlip", "prob": 1.0, "direction": "horizontal"},
            ],
            [{"type": "LoadAnnotations"}],
            [{"type": "PackSegInputs"}],
        ],
    },
]


def add(value):
    def step(results):
        results["img"] += value  # in place, as people's own steps do
        return {**results, "seen": [*results.get("seen", []), value]}

    return step


def test_every_combination_in_order_and_each_on_a_copy():
    steps = datasets.TestTimeAug([[add(1), add(2)], [add(10)], [add(100), add(200)]])
    results = {"img": np.zeros(2), "rng": np.random.default_rng(0)}
    versions = steps(results)
    assert versions["seen"] == [[1, 10, 100], [1, 10, 200], [2, 10, 100], [2, 10, 200]]
    assert [image[0] for image in versions["img"]] == [111, 211, 112, 212]
    assert not results["img"].any()
    assert all(rng is results["rng"] for rng in versions["rng"])
    assert repr(steps).count("Compose(") == 4


def test_random_steps_differ_and_a_config_stays_as_it_is():
    cfg = {"type": "TestTimeAug", "transforms": [[{"type": "RandomCrop", "crop_size": 2}] * 8]}
    before = copy.deepcopy(cfg)
    image = np.arange(32 * 32).reshape(32, 32)
    corners = {int(v[0, 0]) for v in TRANSFORMS.build(cfg)({"img": image})["img"]}
    assert len(corners) > 2
    assert cfg == before


@pytest.mark.parametrize("transforms", [[{"type": "Resize"}], [[]], [3]])
def test_wrong_transforms(transforms):
    with pytest.raises(ConfigError, match=r"pipeline.1.transforms.0: expected a list of at least"):
        TRANSFORMS.build({"type": "TestTimeAug", "transforms": transforms}, path="pipeline.1")


def test_a_wrong_step_is_named():
    cfg = {"type": "TestTimeAug", "transforms": [[{"type": "RandomFlip"}, {"type": "Flip"}]]}
    with pytest.raises(ConfigError, match=r"transforms.0.1.type: unknown transform 'Flip'"):
        TRANSFORMS.build(cfg)


def test_a_rejected_version_is_an_error():
    steps = datasets.TestTimeAug([[lambda results: None]])
    with pytest.raises(DataError, match=r"a.png: a step of TestTimeAug returned nothing"):
        steps({"img_path": "a.png"})


def test_from_files_to_merged_predictions(make_folder):
    rng = np.random.default_rng(1)
    masks = {stem: rng.integers(0, 4, (12, 16), dtype=np.uint8) for stem in "abc"}
    data = BaseSegDataset(
        data_root=make_folder(masks),
        metainfo={"classes": list("wxyz")},
        pipeline=PIPELINE,
        test_mode=True,
    )
    sampler = {"type": "DefaultSampler", "shuffle": False}
    loader = build_dataloader({"batch_size": 2, "sampler": sampler, "dataset": data})
    batch = next(iter(loader))
    assert len(batch["inputs"]) == len(batch["data_samples"]) == 2 * len(RATIOS)
    sizes = [tuple(image.shape) for version in batch["inputs"] for image in version]
    assert sizes == [(3, int(12 * r), int(16 * r)) for r in RATIOS for _ in range(4)]
    flips = [version[0].flip for version in batch["data_samples"]]
    assert flips == [False, True] * len(RATIOS)
    parts = {"backbone": {"type": "TinyBackbone"}, "decode_head": {"type": "TinyHead"}}
    preprocessor = {"type": "SegDataPreProcessor", "size_divisor": 8}
    model = SegTTAModel({"type": "EncoderDecoder", **parts}, preprocessor).eval()
    with torch.no_grad():
        merged = model.test_step(batch)
    assert [sample.img_path.rsplit("/", 1)[1] for sample in merged] == ["a.jpg", "b.jpg"]
    for sample, stem in zip(merged, "ab", strict=True):
        assert sample.pred_sem_seg.shape == (12, 16)
        np.testing.assert_array_equal(sample.gt_sem_seg.data[0], masks[stem])  # never flipped
