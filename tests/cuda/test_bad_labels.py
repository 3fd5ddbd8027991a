"""Labels outside [0, C) on CUDA: no assertion, no wait, treated as ignored, tallied, reported once."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from calls import CALLS, Sizes, placed, same_bits
from surroundings import SLEEP_CYCLES, no_waiting

from segfast.errors import LabelError
from segfast.ops import check_labels, confusion_matrix

SIZES = Sizes(N=2, C=7, small=(9, 11), size=(35, 41), labels=torch.int32)
LABELLED = [call for call in CALLS if "target" in call.draw(SIZES)]
PLACES, VALUES = (
    (1000, 1434, 2869),
    (7, -1, 2**31 - 1),
)  # pixels of 2 x 35 x 41, the last of each image


def with_bad_labels(inputs, values):
    bad = {**inputs, "target": inputs["target"].clone()}
    for place, value in zip(PLACES, values, strict=True):
        bad["target"].view(-1)[place] = value
    return bad


def take_report():
    with pytest.raises(LabelError) as report:
        check_labels()
    check_labels()  # it was taken: nothing is left to say
    return str(report.value)


@pytest.mark.parametrize("call", LABELLED, ids=repr)
def test_cpu_raises_at_once(call):
    with pytest.raises(LabelError, match=r"3 label\(s\) lie outside \[0, 7\).*the first is 7 at"):
        call.run(with_bad_labels(call.draw(SIZES), VALUES))


@pytest.mark.cuda
@pytest.mark.parametrize("call", LABELLED, ids=repr)
def test_counted_as_ignored_and_reported_once(call):
    inputs = placed(call.draw(SIZES), "cuda")
    ignored = call.run(with_bad_labels(inputs, (255, 255, 255)))
    bad = with_bad_labels(inputs, VALUES)
    call.run(bad)
    take_report()
    with no_waiting("cuda"):
        actual = call.run(bad)
    assert same_bits(actual, ignored)
    report = take_report()
    assert "3 label(s) lie outside [0, 7)" in report
    assert "the first is 7 at pixel 1000 of its batch" in report


@pytest.mark.cuda
def test_the_report_waits_for_every_stream():
    call = next(c for c in LABELLED if c.name == "confusion_matrix")
    bad = with_bad_labels(placed(call.draw(SIZES), "cuda"), VALUES)
    call.run(bad)
    take_report()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(SLEEP_CYCLES)
        call.run(bad)
    assert "3 label(s)" in take_report()


@pytest.mark.cuda
def test_bad_predictions_leave_the_counts():
    target = torch.tensor([0, 1, 1, 2, 255], device="cuda")
    pred = torch.tensor([0, 5, 1, -3, 99], device="cuda")  # the last is ignored, whatever it is
    assert confusion_matrix(pred, target, 3).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert "2 label(s) lie outside [0, 3)" in take_report()


@pytest.mark.cuda
def test_each_device_has_its_own_tally():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    zeros = torch.zeros(4, dtype=torch.uint8, device="cuda:1")
    confusion_matrix(zeros, zeros + 9, 3)
    assert "4 label(s) lie outside [0, 3)" in take_report()
