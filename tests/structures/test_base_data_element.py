"""BaseDataElement: two disjoint kinds of fields, copies that do not touch the original."""

# SPDX-License-Identifier: Apache-2.0
import pickle

import numpy as np
import pytest
import torch

from segfast.structures import BaseDataElement


def make(**data):
    return BaseDataElement(metainfo={"img_shape": (4, 5), "tags": ["a"]}, **data)


def test_metainfo_is_deep_copied_and_data_is_shared():
    tags, tensor = ["a"], torch.zeros(2)
    element = BaseDataElement(metainfo={"tags": tags}, boxes=tensor)
    tags.append("b")
    assert element.tags == ["a"]
    assert element.boxes is tensor


def test_a_name_belongs_to_one_kind():
    element = make(boxes=torch.zeros(2))
    with pytest.raises(AttributeError, match="cannot set img_shape as data"):
        element.img_shape = (1, 1)
    with pytest.raises(AttributeError, match="cannot set boxes as metainfo"):
        element.set_metainfo({"boxes": 1})
    assert element.img_shape == (4, 5)


@pytest.mark.parametrize("name", ["_metainfo_fields", "_data_fields"])
def test_name_sets_are_write_once(name):
    element = make()
    with pytest.raises(AttributeError, match="private"):
        setattr(element, name, set())
    with pytest.raises(AttributeError, match="private"):
        delattr(element, name)


def test_set_field_checks_the_type():
    element = make()
    with pytest.raises(AssertionError, match="boxes should be"):
        element.set_field([1], "boxes", dtype=torch.Tensor)
    assert "boxes" not in element
    element.set_field(3, "scale", field_type="metainfo")
    assert element.metainfo_keys() == ["img_shape", "scale", "tags"]


@pytest.mark.parametrize("setter", ["set_metainfo", "set_data"])
def test_setters_take_dicts_only(setter):
    with pytest.raises(AssertionError, match="should be a dict"):
        getattr(make(), setter)([("a", 1)])


def test_listings():
    element = make(b=2, a=1)
    assert element.keys() == ["a", "b"]
    assert element.values() == [1, 2]
    assert dict(element.items()) == {"a": 1, "b": 2}
    assert element.all_keys() == ["img_shape", "tags", "a", "b"]
    assert element.all_values() == [(4, 5), ["a"], 1, 2]
    assert "a" in element
    assert "img_shape" in element
    assert "c" not in element


def test_metainfo_is_a_new_dict_over_the_same_values():
    element = make()
    element.metainfo["more"] = 1
    element.metainfo["tags"].append("b")
    assert "more" not in element
    assert element.tags == ["a", "b"]


def test_get_pop_delete():
    element = make(a=1, b=2)
    assert element.get("a") == 1
    assert element.get("zzz", 7) == 7
    assert element.pop("a") == 1
    assert element.pop("a", None) is None
    with pytest.raises(KeyError, match="no field a"):
        element.pop("a")
    del element.b
    with pytest.raises(AttributeError):
        del element.b
    assert element.pop("img_shape") == (4, 5)
    assert element.all_keys() == ["tags"]


def test_update_new_and_clone():
    element = make(a=1)
    other = BaseDataElement(metainfo={"img_shape": (9, 9)}, b=2)
    element.update(other)
    assert element.img_shape == (9, 9)
    assert element.keys() == ["a", "b"]
    fresh = element.new(metainfo={"x": 1}, c=3)
    assert fresh.all_keys() == ["x", "c"]
    copy = element.clone()
    copy.tags.append("z")
    assert element.tags == ["a"]
    assert copy.keys() == ["a", "b"]


def test_to_rebuilds_even_when_nothing_moves():
    tensor = torch.zeros(2)
    element = make(boxes=tensor, inner=make(x=tensor), note="text")
    moved = element.to("cpu")
    assert moved is not element
    assert moved.boxes is tensor
    assert moved.inner is not element.inner
    assert moved.note == "text"
    moved.tags.append("z")
    moved.extra = 1
    assert element.tags == ["a"]
    assert "extra" not in element
    assert element.to(torch.float64).inner.x.dtype == torch.float64


def test_array_and_tensor_conversions():
    element = make(boxes=torch.ones(2, requires_grad=True), inner=make(x=torch.ones(1)), n=3)
    arrays = element.numpy()
    assert isinstance(arrays.boxes, np.ndarray)
    assert isinstance(arrays.inner.x, np.ndarray)
    assert isinstance(arrays.to_tensor().inner.x, torch.Tensor)
    assert not element.detach().boxes.requires_grad
    assert element.cpu().n == 3


def test_to_dict_merges_and_nests():
    element = BaseDataElement(metainfo={"m": 1}, inner=BaseDataElement(metainfo={"k": 2}, d=3))
    assert element.to_dict() == {"m": 1, "inner": {"k": 2, "d": 3}}


def test_pickle_keeps_fields():
    element = pickle.loads(pickle.dumps(make(a=torch.arange(3))))
    assert element.all_keys() == ["img_shape", "tags", "a"]
    element.b = 1
    assert element.keys() == ["a", "b"]


def test_repr_layout():
    inner = BaseDataElement(metainfo={"k": 1}, x=torch.tensor([1, 2]))
    outer = BaseDataElement(metainfo={"size": (4, 5)}, inner=inner)
    assert repr(outer) == (
        "<BaseDataElement(\n"
        "\n"
        "    META INFORMATION\n"
        "    size: (4, 5)\n"
        "\n"
        "    DATA FIELDS\n"
        "    inner: <BaseDataElement(\n"
        "        \n"
        "            META INFORMATION\n"
        "            k: 1\n"
        "        \n"
        "            DATA FIELDS\n"
        "            x: tensor([1, 2])\n"
        f"        ) at {hex(id(inner))}>\n"
        f") at {hex(id(outer))}>"
    )


def test_repr_of_dicts():
    element = BaseDataElement(kwargs={"a": 1, "b": {"c": "text"}})
    assert repr(element) == (
        "<BaseDataElement(\n"
        "\n"
        "    META INFORMATION\n"
        "\n"
        "    DATA FIELDS\n"
        "    kwargs: \n"
        "        a: 1\n"
        "        b: \n"
        "            c: 'text'\n"
        f") at {hex(id(element))}>"
    )
