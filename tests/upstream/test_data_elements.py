"""BaseDataElement and PixelData beside MMEngine's: the same state, or the same error, after any sequence of calls."""

# SPDX-License-Identifier: Apache-2.0
import copy
import warnings

import numpy as np
import pytest
import torch

from segfast import structures as ours

pytest.importorskip("hypothesis")
theirs = pytest.importorskip("mmengine.structures")
mmseg_structures = pytest.importorskip("mmseg.structures", exc_type=ImportError)
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

NAMES = ["a", "b", "c", "_metainfo_fields", "_data_fields"]
VALUES = [1, "text", None, [1, 2], "tensor", "array", "element"]
names = st.sampled_from(NAMES)
values = st.sampled_from(range(len(VALUES)))
fields = st.dictionaries(st.sampled_from("abc"), values, max_size=2)
STEPS = st.one_of(
    st.tuples(st.just("set_metainfo"), fields),
    st.tuples(st.just("set_metainfo"), st.just("no dict")),
    st.tuples(st.just("set_data"), fields),
    st.tuples(st.just("set_data"), st.just("no dict")),
    st.tuples(st.just("setattr"), names, values),
    st.tuples(st.just("delattr"), names),
    st.tuples(st.just("pop"), names),
    st.tuples(st.just("pop_default"), names, values),
    st.tuples(st.just("get"), names, values),
    st.tuples(st.just("contains"), names),
    st.tuples(st.just("update"), fields, fields),
    st.tuples(st.just("set_field"), st.sampled_from("abc"), values, st.sampled_from(["data", "metainfo", "other"]), st.sampled_from([None, int, str])),
    *[st.tuples(st.just(how)) for how in ("clone", "new", "cpu", "detach", "to_tensor", "numpy", "to", "to_float")],
    st.tuples(st.just("new_with"), fields, fields),
)  # fmt: skip


def value(module, index):
    kind = VALUES[index]
    if kind == "tensor":
        return torch.ones(1, 2, 3, requires_grad=True)
    if kind == "array":
        return np.ones((1, 2, 3))
    if kind == "element":
        return module.BaseDataElement(metainfo={"inner": 1}, data=torch.zeros(1, 2, 3))
    return copy.deepcopy(kind)


def make(module, cfg):
    return {k: value(module, v) for k, v in cfg.items()} if isinstance(cfg, dict) else cfg


def apply(module, element, step):
    """One call -> what it returned, and the element to go on with."""
    how, *args = step
    given = [value(module, a) if isinstance(a, int) else make(module, a) for a in args]
    if how in ("set_metainfo", "set_data"):
        return getattr(element, how)(given[0]), element
    if how == "setattr":
        return setattr(element, args[0], given[1]), element
    if how == "delattr":
        return delattr(element, args[0]), element
    if how == "pop":
        return element.pop(args[0]), element
    if how == "pop_default":
        return element.pop(args[0], given[1]), element
    if how == "get":
        found = element.get(args[0], given[1])
        return sorted(found) if isinstance(found, set) else found, element
    if how == "contains":
        return args[0] in element, element
    if how == "update":
        return element.update(module.BaseDataElement(metainfo=given[0], **free(given))), element
    if how == "set_field":
        return element.set_field(given[1], args[0], field_type=args[2], dtype=args[3]), element
    if how == "new_with":
        return None, element.new(metainfo=given[0] or None, **free(given))
    if how == "to_float":
        return None, element.to(torch.float64)
    return None, getattr(element, how)(*(["cpu"] if how == "to" else []))


def free(given):
    """The second dict without the first one's names: a name is metainfo or data."""
    return {k: v for k, v in given[1].items() if k not in given[0]}


def plain(data):
    """Comparable, whichever package it is of."""
    if isinstance(data, (ours.BaseDataElement, theirs.BaseDataElement)):
        return {
            "meta": {k: plain(v) for k, v in data.metainfo_items()},
            "data": {k: plain(v) for k, v in data.items()},
        }
    if isinstance(data, dict):
        return {k: plain(v) for k, v in data.items()}
    if isinstance(data, (torch.Tensor, np.ndarray)):
        return (
            type(data).__name__,
            str(data.dtype),
            getattr(data, "requires_grad", None),
            data.tolist(),
        )
    return data


def attempt(module, element, step):
    try:
        found, element = apply(module, element, step)
        return plain(found), element
    except Exception as error:
        return type(error), element


@settings(max_examples=400)
@given(st.lists(STEPS, min_size=1, max_size=12))
def test_any_sequence_of_calls(steps):
    pair = {module: module.BaseDataElement() for module in (ours, theirs)}
    for step in steps:
        found = {}
        for module, element in pair.items():
            found[module], pair[module] = attempt(module, element, step)
        assert found[ours] == found[theirs], step
        if step[0] == "update" and isinstance(found[ours], type):
            return  # in which order upstream writes before it raises is its hash seed's choice
        mine, other = pair.values()
        assert plain(mine) == plain(other)
        assert plain(mine.to_dict()) == plain(other.to_dict())
        assert plain(mine.metainfo) == plain(other.metainfo)
        for listing in ("keys", "metainfo_keys", "all_keys"):
            assert set(getattr(mine, listing)()) == set(getattr(other, listing)())


@settings(max_examples=200)
@given(st.data())
def test_pixel_data(data):
    sizes = st.sampled_from([(4, 5), (3, 4, 5), (1, 4, 5), (2, 3, 5), (2, 1, 4, 5), (5,)])
    index = st.one_of(st.integers(0, 3), st.tuples(st.integers(0, 2), st.integers(2, 5)).map(lambda p: slice(*p)), st.just("x"))  # fmt: skip
    shapes = data.draw(st.lists(sizes, min_size=1, max_size=3))
    item = data.draw(st.one_of(st.tuples(index, index), index, st.tuples(index, index, index)))
    results = []
    for module in (ours, theirs):
        element = module.PixelData(metainfo={"number": 7})
        found = []
        with warnings.catch_warnings(action="ignore"):
            for i, shape in enumerate(shapes):
                try:
                    setattr(element, f"field_{i}", torch.arange(np.prod(shape)).view(shape))
                except Exception as error:
                    found.append(type(error))
            found += [element.shape, plain(element)]
            try:  # upstream asks the shape of what has none
                found += [plain(element[item]), element[item].shape] if element.shape else []
            except Exception as error:
                found.append(type(error))
        results.append(found)
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["gt_sem_seg", "pred_sem_seg", "seg_logits"])
@pytest.mark.parametrize("given", ["pixels", "tensor", "none"])
def test_seg_data_sample(name, given):
    results = []
    for module, kind in ((ours, ours.SegDataSample), (theirs, mmseg_structures.SegDataSample)):
        sample = kind(metainfo={"img_path": "a.png"})
        found = []
        given_value = {"pixels": lambda m: m.PixelData(data=torch.zeros(1, 2, 3)), "tensor": lambda m: torch.zeros(1, 2, 3), "none": lambda m: None}[given](module)  # fmt: skip
        for call in (
            lambda s, v=given_value: setattr(s, name, v),
            lambda s: plain(getattr(s, name)),
            lambda s: sorted(s.keys()),
            lambda s: name in s,
            lambda s: delattr(s, name),
            lambda s: name in s,
            lambda s: hasattr(s, name),
        ):
            try:
                found.append(call(sample))
            except Exception as error:
                found.append(type(error))
                break
        results.append(found)
    assert results[0] == results[1]


def test_a_refused_value_leaves_no_field():
    """Upstream notes the name before it looks at the value, and then lists a field that is not there."""
    for kind, left in ((ours.SegDataSample, []), (mmseg_structures.SegDataSample, ["seg_logits"])):
        sample = kind()
        with pytest.raises(AssertionError):
            sample.seg_logits = torch.zeros(1, 2, 3)
        assert list(sample.keys()) == left


def test_private_names_cannot_be_set_as_fields():
    """Upstream's set_field overwrites them, and the element is broken from then on."""
    for name in ("_metainfo_fields", "_data_fields"):
        with pytest.raises(AttributeError, match="private"):
            ours.BaseDataElement().set_field(1, name)
