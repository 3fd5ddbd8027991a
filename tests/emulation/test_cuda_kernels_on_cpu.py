"""The CUDA kernels, thread for thread on the CPU, against the CPU kernels: what a machine without a GPU can know of them."""

# SPDX-License-Identifier: Apache-2.0

import itertools
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from helpers import LAYOUTS, RESIZES, argmax_with_nan, assert_same_choice, strided

import segfast.ops
from build import build
from segfast.ops._checks import LABEL_DTYPES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]
FLOAT32 = 6


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    torch.ops.load_library(build(tmp_path_factory.mktemp("emulation")))
    return torch.ops.segfast_emulated


def labels(shape, num_classes, dtype=torch.uint8):
    result = torch.randint(num_classes, shape)
    result[torch.rand(shape) < 0.2] = 255 if dtype == torch.uint8 else -1
    return result.to(dtype)


def both(name, emulated, *args):
    """The same call on the CPU kernel and on the emulated CUDA kernel."""
    return getattr(torch.ops.segfast, name)(*args), getattr(emulated, name)(*args)


def close(actual, expected, **tolerance):
    torch.testing.assert_close(
        actual, expected, equal_nan=True, **({"rtol": 2e-5, "atol": 2e-6} | tolerance)
    )


@pytest.mark.parametrize(
    "shape", [(2, 7, 5, 70), (3, 300, 2, 3), (300, 5), (4,), (1, 1, 2, 2), (2, 9, 0, 3)]
)
@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("factors", [False, True])
def test_cross_entropy(emulated, shape, reduction, factors):
    logits = torch.randn(shape) * 3
    num_classes = shape[1] if len(shape) > 1 else shape[0]
    pixels = shape[:1] + shape[2:] if len(shape) > 1 else ()
    target = labels(pixels, min(num_classes, 200))
    weight = torch.rand(num_classes) if factors else None
    pixel_weight = torch.rand(pixels) if factors else None
    smoothing = 0.1 if factors else 0.0
    expected, actual = both(
        "cross_entropy",
        emulated,
        logits,
        target,
        weight,
        pixel_weight,
        255,
        reduction,
        smoothing,
        True,
    )
    close(actual, expected)
    upstream = torch.rand(expected[0].shape)
    args = (
        upstream,
        logits,
        target,
        weight,
        pixel_weight,
        expected[1],
        expected[2],
        255,
        reduction,
        smoothing,
    )
    expected, actual = both("cross_entropy_backward", emulated, *args)
    close(actual, expected)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", [
    ((6, 7), (24, 28)), ((6, 7), (48, 56)), ((5, 4), (15, 12)), ((9, 11), (9, 11)), ((9, 11), (20, 31)), ((13, 10), (37, 43)),
    ((17, 19), (5, 6)), ((1, 1), (7, 9)), ((1, 6), (9, 13)), ((6, 1), (9, 13)), ((7, 7), (1, 1)), ((18, 70), (19, 140)),
], ids=str)  # fmt: skip
def test_upsample_cross_entropy(emulated, sizes, align_corners):
    (h, w), (H, W) = sizes
    logits, target = torch.randn(2, 21, h, w) * 3, labels((2, H, W), 21)
    for weight, pixel_weight, reduction, smoothing in [
        (None, None, 1, 0.0), (torch.rand(21), torch.rand(2, H, W), 0, 0.1), (None, None, 2, 0.1)
    ]:  # fmt: skip
        options = (weight, pixel_weight, 255, reduction, smoothing)
        expected, actual = both(
            "upsample_cross_entropy", emulated, logits, target, *options, True, align_corners
        )
        close(actual[:3], expected[:3])
        assert (
            actual[3] - expected[3]
        ).abs().max() <= 1  # a tie may fall to either class in the last bit
        upstream = torch.rand(expected[0].shape)
        args = (
            upstream,
            logits,
            target,
            weight,
            pixel_weight,
            expected[1],
            expected[2],
            255,
            reduction,
            smoothing,
        )
        expected, actual = both("upsample_cross_entropy_backward", emulated, *args, align_corners)
        close(actual, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_and_layouts(emulated, dtype):
    logits = torch.randn(2, 9, 6, 7).to(dtype).contiguous(memory_format=torch.channels_last)
    target = labels((2, 24, 28), 9, torch.int16)
    expected, actual = both(
        "upsample_cross_entropy", emulated, logits, target, None, None, -1, 1, 0.0, True, False
    )
    close(actual, expected)
    args = (
        torch.tensor(1.0),
        logits,
        target,
        None,
        None,
        expected[1],
        expected[2],
        -1,
        1,
        0.0,
        False,
    )
    expected, actual = both("upsample_cross_entropy_backward", emulated, *args)
    assert actual.stride() == expected.stride()
    close(actual.float(), expected.float(), rtol=2e-2, atol=1e-6)
    equal = labels((2, 6, 7), 9, torch.int64)
    expected, actual = both("cross_entropy", emulated, logits, equal, None, None, -1, 1, 0.0, True)
    close(actual, expected)
    cropped = torch.randn(2, 9, 8, 12)[:, :, 1:7, 2:9]
    expected, actual = both(
        "cross_entropy", emulated, cropped, equal, None, None, -1, 0, 0.0, False
    )
    close(actual, expected)
    args = (torch.rand(2, 6, 7), cropped, equal, None, None, expected[1], expected[2], -1, 0, 0.0)
    expected, actual = both("cross_entropy_backward", emulated, *args)
    close(actual, expected)


def test_all_ignored_and_bad_labels(emulated):
    logits = torch.randn(1, 3, 4, 4)
    ignored = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    loss, stats, weight_sum, tally = emulated.upsample_cross_entropy(
        logits, ignored, None, None, 255, 1, 0.0, True, False
    )
    assert torch.isnan(loss)
    assert weight_sum == 0
    assert tally.tolist() == [0, 0]
    grad = emulated.upsample_cross_entropy_backward(
        torch.tensor(1.0), logits, ignored, None, None, stats, weight_sum, 255, 1, 0.0, False
    )
    assert (grad == 0).all()
    anchor = torch.empty(0)
    assert emulated.take_label_faults(anchor).tolist()[0] == 0
    bad = ignored.clone()
    bad[0, 2, 3] = 200
    bad[0, 7, 7] = 9
    emulated.upsample_cross_entropy(logits, bad, None, None, 255, 1, 0.0, True, False)
    count, first = emulated.take_label_faults(anchor).tolist()
    text = segfast.ops._labels._describe(count, first)
    assert "2 label(s) lie outside [0, 3)" in text
    assert "the first is 200 at pixel 19" in text
    assert emulated.take_label_faults(anchor).tolist()[0] == 0


@pytest.mark.parametrize("num_classes", [1, 19, 150])
@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_confusion_matrix(emulated, num_classes, dtype):
    pred = torch.randint(0, num_classes, (3, 50, 61)).to(dtype)
    target = labels((3, 50, 61), num_classes, dtype)
    ignore = 255 if dtype == torch.uint8 else -1
    expected, actual = torch.zeros(2, num_classes, num_classes, dtype=torch.int64)
    torch.ops.segfast.confusion_matrix_(expected, pred, target, ignore)
    emulated.confusion_matrix_(actual, pred, target, ignore)
    assert torch.equal(actual, expected)


LOGITS = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", RESIZES, ids=str)
def test_upsample_argmax(emulated, sizes, align_corners):
    small, size = sizes
    for dtype, layout, num_classes in itertools.product(
        LOGITS, ["contiguous", "channels_last", "cropped"], [1, 7, 21]
    ):
        logits = strided((torch.randn(2, num_classes, *small) * 3).to(dtype), layout)
        chosen = emulated.upsample_argmax(logits, size, align_corners, 4)
        assert_same_choice(chosen, logits, size, align_corners=align_corners, most=1e-2)
    assert emulated.upsample_argmax(logits[:0], size, align_corners, 4).shape == (0, *size)


@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_upsample_argmax_output(emulated, dtype):
    number = {torch.uint8: 0, torch.int16: 2, torch.int32: 3, torch.int64: 4}[dtype]
    logits = torch.randn(1, 150, 3, 4)
    chosen = emulated.upsample_argmax(logits, [9, 12], False, number)
    assert chosen.dtype == dtype
    assert chosen.max() > 127
    assert_same_choice(chosen, logits, (9, 12))
    with pytest.raises(RuntimeError, match="room for all classes"):
        emulated.upsample_argmax(torch.randn(1, 257, 1, 1), [2, 2], False, 0)


@pytest.mark.parametrize("size", [(8, 9), (16, 18), (24, 30), (5, 4)], ids=str)
def test_upsample_argmax_special_values(emulated, size):
    logits = torch.randn(2, 6, 8, 9)
    twins = torch.cat([logits, logits], 1)  # the first index wins a tie, exactly
    chosen = emulated.upsample_argmax(twins, size, False, 4)
    assert torch.equal(chosen, emulated.upsample_argmax(logits, size, False, 4))
    masked = logits.clone()
    masked[:, 2] = -torch.inf  # never wins, not even where a weight is 0
    finite = masked.double().clamp(min=-1e30)
    assert_same_choice(emulated.upsample_argmax(masked, size, False, 4), finite, size, most=1e-2)
    nothing = torch.full_like(logits, -torch.inf)
    assert (emulated.upsample_argmax(nothing, size, False, 4) == 0).all()
    dotted = logits.clone()
    dotted[:, 3, 4, 5] = dotted[:, 1, 4, 6] = torch.nan
    chosen = emulated.upsample_argmax(dotted, size, False, 4)
    assert torch.equal(chosen, argmax_with_nan(dotted, size))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("num_classes", [1, 19, 120])  # 120: too many for a private histogram
@pytest.mark.parametrize("sizes", RESIZES, ids=str)
def test_upsample_confusion_matrix(emulated, sizes, num_classes, align_corners):
    small, size = sizes
    for logit_dtype, dtype, layout in zip(
        [*LOGITS, torch.float32], LABEL_DTYPES, [*LAYOUTS[:3], LAYOUTS[4]], strict=True
    ):
        logits = strided((torch.randn(2, num_classes, *small) * 3).to(logit_dtype), layout)
        ignore = 255 if dtype == torch.uint8 else -1
        target = strided(labels((2, *size), num_classes, dtype)[:, None], layout)[:, 0]
        counts = torch.ones(num_classes, num_classes, dtype=torch.int64)
        emulated.upsample_confusion_matrix_(counts, logits, target, ignore, align_corners)
        chosen = emulated.upsample_argmax(logits, size, align_corners, 4)  # held to float64 above
        expected = segfast.ops.confusion_matrix_reference(
            chosen, target, num_classes, ignore_index=ignore
        )
        assert torch.equal(counts, expected + 1)


def test_upsample_confusion_matrix_tallies_bad_labels(emulated):
    anchor = torch.empty(0)
    assert emulated.take_label_faults(anchor).tolist()[0] == 0
    logits, target = torch.randn(2, 3, 4, 5), labels((2, 16, 20), 3)
    clean = torch.zeros(3, 3, dtype=torch.int64)
    target[1, 2, 3] = target[1, 2, 4] = 255
    emulated.upsample_confusion_matrix_(clean, logits, target, 255, False)
    assert emulated.take_label_faults(anchor).tolist()[0] == 0
    target[1, 2, 3], target[1, 2, 4] = 3, 200
    counts = torch.zeros(3, 3, dtype=torch.int64)
    emulated.upsample_confusion_matrix_(counts, logits, target, 255, False)
    assert torch.equal(counts, clean)
    text = segfast.ops._labels._describe(*emulated.take_label_faults(anchor).tolist())
    assert "2 label(s) lie outside [0, 3)" in text
    assert f"the first is 3 at pixel {16 * 20 + 2 * 20 + 3}" in text


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.int16, torch.uint16, torch.int64, torch.float16, torch.float32],
    ids=str,
)
def test_images(emulated, dtype):
    sizes = [(9, 21), (11, 300), (1, 1)] * 25  # more than one table of sources
    images = [(torch.rand(h, w, 3) * 200).to(dtype).permute(2, 0, 1) for h, w in sizes]
    for mean, std, reverse, channels_last in [
        ([1.5, 2.0, 3.0], [4.0, 5.5, 6.0], True, False),
        ([], [], False, True),
    ]:
        args = (images, mean, std, [12, 310], 0.5, reverse, FLOAT32, channels_last)
        expected, actual = both("normalize_pad_stack", emulated, *args)
        assert torch.equal(actual, expected)
        assert actual.stride() == expected.stride()
    bands = [
        torch.randint(0, 255, (70, 3, 4), dtype=torch.uint8)
    ]  # more channels than one launch takes
    args = (bands, [0.5] * 70, [float(i + 1) for i in range(70)], [3, 4], 0.0, True, FLOAT32, False)
    expected, actual = both("normalize_pad_stack", emulated, *args)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_maps(emulated, dtype):
    maps = [torch.randint(0, 100, (h, w)).to(dtype) for h, w in [(9, 300), (17, 5)]]
    expected, actual = both("pad_stack", emulated, [*maps, maps[0].t()[:20, :3]], [20, 301], 77)
    assert torch.equal(actual, expected)
