"""Evaluator and BaseMetric beside MMEngine's: merging, prefixes, sizes, stored predictions."""

# SPDX-License-Identifier: Apache-2.0
import warnings

import pytest
import torch

from segfast import evaluation as ours
from segfast.structures import BaseDataElement

pytest.importorskip("hypothesis")
theirs = pytest.importorskip("mmengine.evaluator")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mmengine.structures import BaseDataElement as TheirElement  # noqa: E402


def toy(base):
    """A metric of that package which adds up what it saw."""

    class Toy(base):
        def __init__(self, names, prefix=None, default=None):
            self.default_prefix = default
            super().__init__(prefix=prefix)
            self.names = names
            self.batches = []

        def process(self, data_batch, data_samples):
            self.batches.append(data_batch)
            self.results += [sample["number"] for sample in data_samples]

        def compute_metrics(self, results):
            return {name: (i + 1) * sum(results) for i, name in enumerate(self.names)}

    return Toy


METRICS = st.lists(
    st.fixed_dictionaries(
        {
            "names": st.lists(st.sampled_from(["mIoU", "aAcc", "loss"]), min_size=1, max_size=2, unique=True),
            "prefix": st.sampled_from([None, "a", "b"]),
            "default": st.sampled_from([None, "d"]),
        }
    ),
    min_size=1,
    max_size=3,
)  # fmt: skip


def attempt(call):
    with warnings.catch_warnings(action="ignore"):
        try:
            return call()
        except Exception as error:
            return type(error), str(error)[:60]


def build(package, cfgs):
    kind = toy(package.BaseMetric)
    return package.Evaluator([kind(**cfg) for cfg in cfgs])


def samples(element, numbers):
    return [element(metainfo={"number": n}) if n % 2 else {"number": n} for n in numbers]


BOTH = ((ours, BaseDataElement), (theirs, TheirElement))


@settings(max_examples=300)
@given(METRICS, st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=3), st.integers(0, 12))
def test_process_and_evaluate(cfgs, batches, size):
    found = []
    for package, element in BOTH:
        evaluator = build(package, cfgs)
        evaluator.dataset_meta = {"classes": ("x",)}
        assert all(m.dataset_meta == {"classes": ("x",)} for m in evaluator.metrics)
        for i, numbers in enumerate(batches):
            evaluator.process(data_samples=samples(element, numbers), data_batch={"batch": i})
        first = attempt(lambda e=evaluator: e.evaluate(size))
        again = attempt(lambda e=evaluator: e.evaluate(size))  # the results are used up
        found.append((first, again, [m.batches for m in evaluator.metrics]))
    assert found[0] == found[1]


@settings(max_examples=100)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=7), st.integers(1, 4), st.booleans())
def test_offline_evaluate(numbers, chunk_size, with_data):
    found = []
    for package, element in BOTH:
        evaluator = build(package, [{"names": ["mIoU"]}])
        data = [{"x": n} for n in numbers] if with_data else None
        scores = evaluator.offline_evaluate(samples(element, numbers), data, chunk_size)
        found.append((scores, evaluator.metrics[0].batches))
    assert found[0] == found[1]


@settings(max_examples=200)
@given(st.sampled_from(["mIoU", "a/mIoU", "IoU", "b/aAcc"]), st.sets(st.sampled_from(["mIoU", "a/mIoU", "b/mIoU", "b/aAcc", "aAcc"])))  # fmt: skip
def test_get_metric_value(indicator, names):
    utils = pytest.importorskip("mmengine.evaluator.utils")
    metrics = {name: i for i, name in enumerate(sorted(names))}
    values = []
    for get in (ours.get_metric_value, utils.get_metric_value):
        try:
            values.append(get(indicator, dict(metrics)))
        except Exception as error:
            values.append(type(error))
    assert values[0] == values[1]


def test_tensors_come_to_the_cpu():
    class Keep:
        def process(self, data_batch, data_samples):
            self.results += data_samples

        def compute_metrics(self, results):
            return {"device": str(results[0]["data"].device), "type": type(results[0]).__name__}

    found = []
    for package, element in BOTH:
        metric = type("Kept", (Keep, package.BaseMetric), {})()
        evaluator = package.Evaluator([metric])
        evaluator.process([element(data=torch.zeros(2))])
        found.append(attempt(lambda e=evaluator: e.evaluate(1)))
    assert found[0] == found[1] == {"device": "cpu", "type": "dict"}
