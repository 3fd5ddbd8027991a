"""Parameter schedulers beside MMEngine's: the same values at every step, alone and chained."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

pytest.importorskip("mmengine")
pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.optim import OptimWrapper as TheirWrapper
from mmengine.registry import PARAM_SCHEDULERS as THEIRS

from segfast.registry import PARAM_SCHEDULERS as OURS
from segfast.runner import OptimWrapper

factor = st.floats(0.05, 1.0)
rate = st.floats(1e-6, 0.5)
length = st.integers(1, 30)
KINDS = {
    "PolyLR": st.fixed_dictionaries({"power": st.floats(0.3, 3.0), "eta_min": rate}),
    "LinearLR": st.fixed_dictionaries({"start_factor": factor, "end_factor": factor}),
    "CosineAnnealingLR": st.one_of(
        st.fixed_dictionaries({"eta_min": rate}, optional={"T_max": length}),
        st.fixed_dictionaries({"eta_min_ratio": factor}, optional={"T_max": length}),
    ),
    "ConstantLR": st.fixed_dictionaries({"factor": factor}),
    "StepLR": st.fixed_dictionaries({"step_size": length, "gamma": factor}),
    "MultiStepLR": st.fixed_dictionaries(
        {"milestones": st.lists(length, max_size=3), "gamma": factor}
    ),
    "ExponentialLR": st.fixed_dictionaries({"gamma": factor}),
    "PolyMomentum": st.fixed_dictionaries({"eta_min": rate}),
    "LinearMomentum": st.fixed_dictionaries({"start_factor": factor}),
    "CosineAnnealingMomentum": st.fixed_dictionaries({"eta_min": rate}),
}


@st.composite
def chains(draw, kinds=tuple(KINDS)):
    """One to three scheduler configs with windows that may follow, overlap or leave gaps."""
    chain = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(kinds))
        begin = draw(st.integers(0, 12))
        window = {"begin": begin, "end": begin + draw(length), "by_epoch": draw(st.booleans())}
        chain.append({"type": kind, **draw(KINDS[kind]), **window})
    return chain


def optimizer(kind):
    slow, fast = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [slow], "lr": 0.3}, {"params": [fast]}]
    if kind == "adam":
        return torch.optim.Adam(groups, lr=1.0, betas=(0.7, 0.99))
    return torch.optim.SGD(groups, lr=1.0, momentum=0.7)


def course(registry, wrapper, chain, steps=40):
    """Learning rates and momenta of all groups at every step."""
    schedulers = [registry.build({**cfg, "optimizer": wrapper}) for cfg in chain]
    values = []
    for _ in range(steps):
        rates, momenta = wrapper.get_lr(), wrapper.get_momentum()
        values.append([*rates["lr"], *rates["base_lr"], *momenta["momentum"]])
        wrapper.optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return torch.tensor(values, dtype=torch.float64)


@settings(deadline=None, max_examples=300)
@given(chains(), st.sampled_from(["sgd", "adam"]))
def test_chains_have_mmengines_values(chain, kind):
    ours = course(OURS, OptimWrapper(optimizer(kind)), chain)
    theirs = course(THEIRS, TheirWrapper(optimizer(kind)), chain)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 12), factor), min_size=1, max_size=3),
    rate,
    st.integers(0, 5),
)
def test_restarts_have_mmengines_values(periods, eta_min, begin):
    chain = [
        {
            "type": "CosineRestartLR",
            "periods": [period for period, _ in periods],
            "restart_weights": [weight for _, weight in periods],
            "eta_min": eta_min,
            "begin": begin,
            "end": 60,
        }
    ]
    ours = course(OURS, OptimWrapper(optimizer("sgd")), chain)
    theirs = course(THEIRS, TheirWrapper(optimizer("sgd")), chain)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    st.floats(0.01, 2.0),
    st.integers(5, 39),
    st.floats(0.1, 0.9),
    st.sampled_from(["cos", "linear"]),
    st.booleans(),
)
def test_one_cycle_has_mmengines_values(eta_max, total, pct_start, strategy, three_phase):
    cfg = {
        "type": "OneCycleLR",
        "eta_max": eta_max,
        "total_steps": total,
        "pct_start": pct_start,
        "anneal_strategy": strategy,
        "three_phase": three_phase,
        "end": total,
    }
    sides = [OURS, OptimWrapper(plain())], [THEIRS, TheirWrapper(plain())]
    ours, theirs = (rates(registry, wrapper, cfg) for registry, wrapper in sides)
    assert ours == pytest.approx(theirs, rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=30),
    st.sampled_from(["greater", "less"]),
    st.sampled_from(["rel", "abs"]),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_plateaus_have_mmengines_values(scores, rule, threshold_rule, patience, cooldown):
    cfg = {
        "type": "ReduceOnPlateauLR",
        "monitor": "m",
        "rule": rule,
        "threshold_rule": threshold_rule,
        "patience": patience,
        "cooldown": cooldown,
        "threshold": 0.01,
        "min_value": 1e-3,
    }
    sides = [OURS, OptimWrapper(plain())], [THEIRS, TheirWrapper(plain())]
    courses = []
    for registry, wrapper in sides:
        scheduler = registry.build({**cfg, "optimizer": wrapper})
        course = []
        for score in scores:
            scheduler.step({"m": score})
            course.append(wrapper.get_lr()["lr"][0])
        courses.append(course)
    assert courses[0] == pytest.approx(courses[1], rel=1e-12)


def plain():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def rates(registry, wrapper, cfg):
    scheduler = registry.build({**cfg, "optimizer": wrapper})
    found = []
    for _ in range(cfg["end"]):
        found.append(wrapper.get_lr()["lr"][0])
        scheduler.step()
    return found
