"""Resize beside OpenCV and beside mmseg's own: the same sizes and labels, pixels within one grey level."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pytest.importorskip("mmseg")

from mmseg.datasets.transforms import Resize as TheirResize  # noqa: E402

from segfast.datasets import Resize  # noqa: E402
from segfast.datasets.transforms.resize import resize_nearest  # noqa: E402


def picture(height, width, dtype=np.uint8, seed=0):
    """Smooth, with edges and noise: what photographs have."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    rows = np.stack([np.cos(y / length) for length in (7, 11, 13)], axis=-1)
    waves = 120 + 60 * np.sin(x / 9)[..., None] + 50 * rows
    waves[height // 3 : height // 2, width // 4 :] = 10
    noisy = np.clip(waves + rng.normal(0, 12, waves.shape), 0, 255)
    return noisy.astype(dtype)


def sample(height, width, dtype=np.uint8):
    labels = np.random.default_rng(1).integers(0, 19, (height, width), dtype=np.uint8)
    labels[:3] = 255
    return {
        "img": picture(height, width, dtype),
        "gt_seg_map": labels,
        "seg_fields": ["gt_seg_map"],
    }


CASES = [
    dict(scale=(64, 20), keep_ratio=True),
    dict(scale=(64, 20)),
    dict(scale=(200, 301)),
    dict(scale=(2048, 512), keep_ratio=True),
    dict(scale=64, keep_ratio=True),
    dict(scale_factor=0.5, keep_ratio=True),
    dict(scale_factor=1.25, keep_ratio=True),
    dict(scale_factor=(0.5, 2.0)),
    dict(scale=(77, 41), interpolation="nearest"),
    dict(scale=(77, 141), interpolation="bicubic"),
    dict(scale=(77, 41), backend="pillow"),
    dict(scale=(177, 41), backend="pillow", interpolation="bicubic"),
]


@pytest.mark.parametrize("size", [(97, 133), (133, 97), (512, 1024)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_as_mmseg(case, size):
    theirs, ours = TheirResize(**case)(sample(*size)), Resize(**case)(sample(*size))
    np.testing.assert_array_equal(ours["gt_seg_map"], theirs["gt_seg_map"])
    difference = np.abs(ours["img"].astype(int) - theirs["img"].astype(int))
    # Pillow's cubic rounds and clips between its passes, and so do ours, the other way round.
    rounded_twice = case.get("backend") == "pillow" and case.get("interpolation") == "bicubic"
    assert difference.max() <= (8 if rounded_twice else 1)
    assert ours["img"].dtype == theirs["img"].dtype
    for key in ("img_shape", "scale_factor", "keep_ratio", "scale"):
        assert ours[key] == pytest.approx(theirs[key]), key


def test_float_images():
    for case in (dict(scale=(77, 41)), dict(scale=(200, 301), interpolation="bicubic")):
        theirs = TheirResize(**case)(sample(97, 133, np.float32))
        ours = Resize(**case)(sample(97, 133, np.float32))
        np.testing.assert_allclose(ours["img"], theirs["img"], atol=0.02)


def test_nearest_is_opencvs_for_any_size():
    rng = np.random.default_rng(0)
    for old, new in rng.integers(1, 3000, (2000, 2)).tolist():
        row = np.arange(old, dtype=np.float32)[None]
        theirs = cv2.resize(row, (new, 1), interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(resize_nearest(row, (1, new)), theirs, err_msg=f"{old} {new}")
