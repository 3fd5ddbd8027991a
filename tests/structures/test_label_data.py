"""LabelData: labels and one-hot vectors."""

# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from segfast.structures import LabelData
from segfast.structures.label_data import format_label


def test_one_hot_and_back():
    label = torch.tensor([3, 1])
    onehot = LabelData.label_to_onehot(label, num_classes=5)
    assert onehot.tolist() == [0, 1, 0, 1, 0]
    assert onehot.dtype == label.dtype
    assert LabelData.onehot_to_label(onehot).tolist() == [1, 3]
    assert LabelData.label_to_onehot(torch.tensor([], dtype=torch.int64), 2).tolist() == [0, 0]


def test_refused():
    with pytest.raises(AssertionError, match="below num_classes 3"):
        LabelData.label_to_onehot(torch.tensor([3]), num_classes=3)
    with pytest.raises(AssertionError, match="tensor"):
        LabelData.label_to_onehot([1], num_classes=3)
    with pytest.raises(AssertionError, match="tensor"):
        LabelData.onehot_to_label([0, 1])
    for bad in (torch.tensor([[0, 1]]), torch.tensor([0, 2]), torch.tensor([0, -1])):
        with pytest.raises(ValueError, match="one-hot"):
            LabelData.onehot_to_label(bad)


@pytest.mark.parametrize("value", [2, torch.tensor(2), np.array(2), [2], (2,), np.array([2])])
def test_one_number_in_any_form(value):
    label = format_label(value).label
    assert label.tolist() == [2]
    assert label.dtype == torch.int64


def test_soft_labels_keep_their_values():
    torch.testing.assert_close(
        format_label([0.2, 0, 0.8]).label, torch.tensor([0.2, 0.0, 0.8]), rtol=0, atol=0
    )


def test_number_of_classes():
    data = format_label(5, num_classes=10)
    assert data.num_classes == 10
    assert data.metainfo_keys() == ["num_classes"]
    with pytest.raises(ValueError, match=r"data .*15.* should not exceed num_classes \(10\)"):
        format_label(15, num_classes=10)


@pytest.mark.parametrize("value", ["hi", b"hi", 1.5, None, {1}, {"a": 1}])
def test_other_types_are_refused(value):
    with pytest.raises(TypeError, match="is not an available label type"):
        format_label(value)
