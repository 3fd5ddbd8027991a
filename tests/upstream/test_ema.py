"""EMAHook beside MMEngine's averaged models: the same averages after every iteration."""

# SPDX-License-Identifier: Apache-2.0

from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip("mmengine")
pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS

from segfast.runner import EMAHook

KINDS = ("ExponentialMovingAverage", "MomentumAnnealingEMA", "StochasticWeightAverage")


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(KINDS),
    st.floats(1e-4, 0.4),
    st.integers(1, 3),
    st.booleans(),
    st.lists(st.floats(-5, 5), min_size=1, max_size=12),
)
def test_averages(kind, momentum, interval, update_buffers, values):
    model = nn.BatchNorm1d(2)
    options = {"interval": interval, "update_buffers": update_buffers}
    theirs = {"type": kind, "model": model, **options}
    if kind != "StochasticWeightAverage":
        theirs["momentum"] = momentum
    theirs = MODELS.build(theirs)
    ours = EMAHook(kind, momentum=momentum, **options)
    for i, value in enumerate(values):
        model.weight.data = torch.tensor([value, 1.0])
        model.running_mean = torch.tensor([1.0, value])
        ours.after_train_iter(SimpleNamespace(model=model, iter=i, epoch=0), 0)
        theirs.update_parameters(model)
    expected = theirs.module.state_dict()
    for name, average in ours.average.items():
        torch.testing.assert_close(average, expected[name], rtol=1e-5, atol=1e-6)
    assert set(ours.average) == (set(expected) if update_buffers else {"weight", "bias"})
