"""RandomChoiceResize and ResizeToMultiple."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from segfast.datasets import RandomChoiceResize, Resize, ResizeToMultiple
from segfast.errors import ConfigError
from segfast.registry import TRANSFORMS


def sample(height=40, width=60):
    labels = np.random.default_rng(0).integers(0, 3, (height, width), dtype=np.uint8)
    return {
        "img": np.stack([labels * 80] * 3, -1),
        "gt_seg_map": labels,
        "seg_fields": ["gt_seg_map"],
    }


def test_each_size_is_drawn_and_named():
    scales = [(30, 20), (90, 60), 32]
    step = RandomChoiceResize(scales, keep_ratio=False)
    rng = np.random.default_rng(0)
    drawn = [step({**sample(), "rng": rng}) for _ in range(60)]
    assert {r["scale_idx"] for r in drawn} == {0, 1, 2}
    for results in drawn:
        expected = Resize(scales[results["scale_idx"]])(sample())
        np.testing.assert_array_equal(results["img"], expected["img"])
        np.testing.assert_array_equal(results["gt_seg_map"], expected["gt_seg_map"])
    assert RandomChoiceResize((30, 20))(sample())["img_shape"] == (20, 30)
    assert RandomChoiceResize([(90, 50)], keep_ratio=True)(sample())["img_shape"] == (50, 75)


def test_both_sides_up_to_a_multiple():
    results = ResizeToMultiple(32)(sample())
    assert results["img"].shape == (64, 64, 3)
    assert results["gt_seg_map"].shape == results["img_shape"] == results["pad_shape"] == (64, 64)
    results = ResizeToMultiple((30, 16), "nearest")(sample())
    assert results["img_shape"] == (48, 60)
    assert set(np.unique(results["img"])) == {0, 80, 160}
    same = sample(64, 32)
    assert ResizeToMultiple()(same)["img"] is same["img"]


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(type="RandomChoiceResize", scales=[]), "scales: expected at least one size"),
        (dict(type="RandomChoiceResize", scales=[0]), "scale: expected one or two positive ints"),
        (dict(type="RandomChoiceResize", scales=[8], k=1), "Resize has no such argument"),
        (
            dict(type="RandomChoiceResize", scales=8, resize_type=dict),
            "resize_type: expected a tran",
        ),
        (
            dict(type="ResizeToMultiple", size_divisor=0),
            "size_divisor: expected one or two positive",
        ),
        (dict(type="ResizeToMultiple", interpolation="area"), "interpolation: expected one of"),
    ],
)
def test_wrong_arguments(cfg, message):
    with pytest.raises(ConfigError, match=message):
        TRANSFORMS.build(cfg, path="pipeline.0")
