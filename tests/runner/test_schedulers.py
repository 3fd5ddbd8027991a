"""Parameter schedulers against their closed forms; their windows; what they leave behind."""

# SPDX-License-Identifier: Apache-2.0

import io
import math
import warnings

import pytest
import torch
from torch import nn

from segfast.errors import ConfigError
from segfast.registry import PARAM_SCHEDULERS
from segfast.runner import (
    ConstantLR,
    CosineAnnealingLR,
    CosineRestartLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    OptimWrapper,
    PolyLR,
    PolyMomentum,
    ReduceOnPlateauLR,
    StepLR,
)


def optimizer(lr=1.0, **options):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, **options)


def values(scheduler, count, name="lr"):
    result = []
    for _ in range(count):
        result.append(scheduler.optimizer.param_groups[0][name])
        scheduler.step()
    return result


def test_poly_ends_at_eta_min():
    actual = values(
        PolyLR(optimizer(), power=0.9, eta_min=1e-4, begin=0, end=10, by_epoch=False), 12
    )
    expected = [1e-4 + (1 - 1e-4) * (1 - t / 9) ** 0.9 for t in range(10)]
    assert actual == pytest.approx([*expected, 1e-4, 1e-4])
    assert actual[9] == 1e-4
    assert values(PolyLR(optimizer(2.0), eta_min_ratio=0.1, end=3), 3)[-1] == pytest.approx(0.2)


def test_linear_warms_up_and_leaves_alone():
    actual = values(LinearLR(optimizer(2.0), start_factor=0.25, begin=0, end=5, by_epoch=False), 7)
    assert actual == pytest.approx([0.5, 0.875, 1.25, 1.625, 2.0, 2.0, 2.0])


def test_cosine_and_restarts():
    cosine = values(CosineAnnealingLR(optimizer(), eta_min=0.1, begin=0, end=4), 6)
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]
    assert cosine == pytest.approx(
        [*expected, expected[-1], expected[-1]]
    )  # a step short of eta_min
    restarts = CosineRestartLR(optimizer(), periods=[2, 3], restart_weights=[1, 0.5], eta_min=0.1)
    expected = [1.0, 0.55, 0.5, 0.4, 0.2, 0.2]
    assert values(restarts, 6) == pytest.approx(expected)


def test_constant_steps_exponential_and_one_cycle():
    assert values(ConstantLR(optimizer(), factor=0.5, begin=0, end=3), 4) == [0.5, 0.5, 1.0, 1.0]
    actual = values(MultiStepLR(optimizer(), milestones=[2, 3], gamma=0.1), 5)
    assert actual == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    assert values(StepLR(optimizer(), step_size=2, gamma=0.5), 5) == [1, 1, 0.5, 0.5, 0.25]
    assert values(ExponentialLR(optimizer(), gamma=0.5, end=3), 5) == [1, 0.5, 0.25, 0.25, 0.25]
    cycle = values(OneCycleLR(optimizer(), eta_max=1.0, end=10, anneal_strategy="linear"), 10)
    assert cycle[0] == pytest.approx(1 / 25)
    assert max(cycle) == cycle[2] == 1.0
    assert cycle[-1] == pytest.approx(1 / 25e4)


def test_momentum_twins_and_first_betas():
    sgd = optimizer(momentum=0.8)
    assert values(PolyMomentum(sgd, end=3), 3, "momentum") == pytest.approx([0.8, 0.4, 0.0])
    assert sgd.param_groups[0]["lr"] == 1.0
    adam = torch.optim.Adam([nn.Parameter(torch.zeros(1))], betas=(0.8, 0.99))
    betas = values(PolyMomentum(adam, end=3), 3, "betas")
    assert [first for first, _ in betas] == pytest.approx([0.8, 0.4, 0.0])
    assert {second for _, second in betas} == {0.99}
    for name in PARAM_SCHEDULERS:
        twin = f"{name.removesuffix('LR')}Momentum"
        assert twin in PARAM_SCHEDULERS or not name.endswith("LR") or name == "OneCycleLR"


def test_they_follow_each_other_overlap_and_leave_gaps():
    sgd = optimizer(4.0)
    chain = [LinearLR(sgd, 0.25, 0.5, begin=0, end=3), PolyLR(sgd, begin=4, end=7)]
    chain.append(StepLR(sgd, step_size=1, gamma=0.5, begin=5, end=7))
    actual = []
    for _ in range(8):
        actual.append(sgd.param_groups[0]["lr"])
        for scheduler in chain:
            scheduler.step()
    # 1 to 2 in two intervals; a gap; from there down by thirds... and halved once on the way
    assert actual == pytest.approx([1.0, 1.5, 2.0, 2.0, 2.0, 1.0, 0.0, 0.0])


def test_every_group_and_the_base_are_scheduled():
    slow, fast = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    groups = [{"params": [slow], "lr": 0.1}, {"params": [fast]}]
    wrapper = OptimWrapper(torch.optim.SGD(groups, lr=1.0))
    scheduler = PolyLR(wrapper, end=3)
    scheduler.step()
    assert wrapper.get_lr() == {"lr": pytest.approx([0.05, 0.5]), "base_lr": [0.5]}


@pytest.mark.parametrize(("name", "options"), [
    ("PolyLR", {"eta_min": 0.1}), ("LinearLR", {}), ("CosineAnnealingLR", {}), ("CosineRestartLR", {"periods": [3, 9]
     , "restart_weights": [1, 1]}), ("ConstantLR", {}), ("StepLR", {"step_size": 2}), ("ExponentialLR", {"gamma": 0.9}),
    ("MultiStepLR", {"milestones": [3, 6]}), ("OneCycleLR", {"eta_max": 2.0}),
])  # fmt: skip
@pytest.mark.parametrize("begin", [0, 2, 7])
def test_a_state_is_plain_and_goes_on(name, options, begin):
    def make(sgd):
        return PARAM_SCHEDULERS.get(name)(sgd, begin=begin, end=12, **options)

    first, second = make(optimizer()), make(optimizer())
    for _ in range(5):
        first.step()
    file = io.BytesIO()
    torch.save([first.state_dict(), first.optimizer.state_dict()], file)
    file.seek(0)
    mine, optimizers = torch.load(file, weights_only=True)
    second.optimizer.load_state_dict(optimizers)
    second.load_state_dict(mine)
    assert values(second, 9) == values(first, 9)


def test_nothing_is_warned_of_without_an_optimiser_step():
    with warnings.catch_warnings():  # accumulation steps the schedulers first
        warnings.simplefilter("error")
        values(PolyLR(optimizer(), end=5), 5)


def test_plateau_waits_and_reduces():
    sgd = optimizer()
    scheduler = ReduceOnPlateauLR(sgd, monitor="mIoU", rule="greater", factor=0.5, patience=1)
    rates = []
    for score in (10, 20, 15, 15, 15, 30):
        scheduler.step({"mIoU": score})
        rates.append(sgd.param_groups[0]["lr"])
    assert rates == [1, 1, 1, 0.5, 0.5, 0.5]
    scheduler.step()  # no validation
    with pytest.raises(ConfigError, match=r"no metric 'mIoU', there are aAcc"):
        scheduler.step({"aAcc": 1.0})
    with pytest.raises(ValueError, match="'less' or 'greater'"):
        ReduceOnPlateauLR(sgd, rule="max")


@pytest.mark.parametrize(("name", "options", "text"), [
    ("PolyLR", {"begin": 3, "end": 3}, "expected end > begin"),
    ("PolyLR", {"eta_min": 1, "eta_min_ratio": 1}, "eta_min or eta_min_ratio"),
    ("PolyMomentum", {}, "no momentum to schedule"),
    ("LinearLR", {"start_factor": 2.0}, "[Ss]tarting multiplicative factor"),
    ("CosineRestartLR", {"periods": [1, 2]}, "the same length"),
    ("OneCycleLR", {"eta_max": 1.0, "begin": 5, "pct_start": 3.0}, "pct_start"),  # also before it begins
])  # fmt: skip
def test_wrong_settings(name, options, text):
    adagrad = torch.optim.Adagrad([nn.Parameter(torch.zeros(1))])
    cfg = {"type": name, **options}
    with pytest.raises(ConfigError, match=rf"^param_scheduler.0: .*{text}"):
        PARAM_SCHEDULERS.build(cfg, path="param_scheduler.0", optimizer=adagrad)
