"""The CUDA kernels of upsample_argmax and upsample_confusion_matrix, thread for thread on the CPU."""

# SPDX-License-Identifier: Apache-2.0

import itertools

import pytest
import torch
from emulated import labels
from helpers import LAYOUTS, RESIZES, argmax_with_nan, assert_same_choice, strided

import segfast.ops
from segfast.ops._checks import LABEL_DTYPES

pytestmark = pytest.mark.slow


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
@pytest.mark.parametrize("num_classes", [1, 19, 150, 200])  # 200: too many for a private histogram
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
