"""The registry: names to objects, and messages that name the key."""

# SPDX-License-Identifier: Apache-2.0

import os
import sys
import types

import numpy as np
import pytest
import torch

from segfast.errors import ConfigError, DataError
from segfast.registry import MODELS, Registry

THINGS = Registry("thing")


@THINGS.register_module()
class Head:
    def __init__(self, in_channels, num_classes=19, child=None, **kwargs):
        if kwargs:
            raise TypeError(
                f"Head.__init__() got an unexpected keyword argument '{next(iter(kwargs))}'"
            )
        if num_classes < 1:
            raise ValueError("num_classes must be\n positive")
        self.num_classes = num_classes
        self.child = THINGS.build(child, path="child") if child else None


@THINGS.register_module()
class Leaf:
    def __init__(self, size=1):
        if size < 1:
            raise AssertionError("size must be positive")
        self.size = size


def message(cfg, path="model", **defaults):
    with pytest.raises(ConfigError) as caught:
        THINGS.build(cfg, path=path, **defaults)
    return str(caught.value)


def test_builds_names_classes_and_dotted_paths():
    assert THINGS.build(dict(type="Leaf", size=3)).size == 3
    assert THINGS.build(dict(type=Leaf)).size == 1
    assert isinstance(THINGS.build(dict(type="torch.nn.Conv2d", in_channels=1, out_channels=2,
                                        kernel_size=1)), torch.nn.Conv2d)  # fmt: skip
    assert isinstance(THINGS.build(dict(type="torch.nn.Identity")), torch.nn.Identity)


def test_defaults_fill_but_never_override_and_cfg_is_untouched():
    cfg = dict(size=5)
    assert THINGS.build(cfg, type="Leaf", size=7).size == 5
    assert THINGS.build(dict(type="Leaf"), size=7).size == 7
    assert cfg == dict(size=5)


def test_built_objects_pass_through():
    leaf = Leaf()
    assert THINGS.build(leaf) is leaf


@pytest.mark.parametrize("value", [None, "Leaf", 3, [dict(type="Leaf")]])
def test_plain_values_are_not_objects(value):
    assert message(value).startswith("model: expected a dict(type=...) for a thing, got")


def test_unknown_type_lists_near_names():
    assert message(dict(type="Leef")) == "model.type: unknown thing 'Leef' (did you mean Leaf?)"
    assert "known: Head, Leaf" in message(dict(type="Xylophone"))
    assert message(dict(size=1)) == "model.type: missing, it names the thing to build"
    assert "expected a name or a class" in message(dict(type=3))


def test_unknown_argument():
    assert (
        message(dict(type="Leaf", sise=1))
        == "model.sise: Leaf has no such argument (did you mean size?)"
    )
    # a constructor with **kwargs says so itself
    assert (
        message(dict(type="Head", in_channels=1, num_clases=2))
        == "model.num_clases: Head has no such argument (did you mean num_classes?)"
    )


def test_missing_argument():
    assert message(dict(type="Head")) == "model.in_channels: missing, Head needs this argument"


def test_nested_errors_carry_the_whole_path():
    cfg = dict(type="Head", in_channels=1, child=dict(type="Head", in_channels=1,
               child=dict(type="Leaf", siz=1)))  # fmt: skip
    assert message(cfg).startswith("model.child.child.siz: Leaf has no such argument")


def test_refused_values_become_one_line_and_are_chained():
    with pytest.raises(ConfigError, match=r"^model: Head: num_classes must be positive$") as caught:
        THINGS.build(dict(type="Head", in_channels=1, num_classes=0), path="model")
    assert type(caught.value.__cause__) is ValueError
    assert message(dict(type="Leaf", size=0)) == "model: Leaf: size must be positive"


def test_what_a_constructor_stumbles_over_names_the_key_and_keeps_its_cause():
    def bug(size, at=None):
        return {"a": 1}[size]

    def shape(size):
        return torch.zeros(size)

    for size, kind in (("b", "KeyError: 'b'"), ([], "TypeError: unhashable")):
        with pytest.raises(ConfigError, match=rf"^net\.x: bug: {kind}.*SEGFAST_DEBUG=1") as caught:
            THINGS.build(dict(type=bug, size=size), path="net.x")
        assert type(caught.value.__cause__).__name__ == kind.split(":")[0]
    assert "shape: RuntimeError: " in message(dict(type=shape, size=-1))


def test_other_errors_pass():
    def broken():
        raise ZeroDivisionError

    def bad_data():
        raise DataError("no such folder")

    def no_memory():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ZeroDivisionError):
        THINGS.build(dict(type=broken))
    with pytest.raises(DataError, match=r"^no such folder$"):
        THINGS.build(dict(type=bad_data), path="model")
    with pytest.raises(torch.OutOfMemoryError):
        THINGS.build(dict(type=no_memory))


def test_names_of_arguments_are_words():
    assert message({"type": "Leaf", None: 3}) == "model: expected names of arguments, got None"
    assert message({"type": "Leaf", 1: 3}) == "model: expected names of arguments, got 1"


def test_a_bool_is_no_word_and_a_number_may_be_a_name(tmp_path, monkeypatch):
    def theirs(fast=False, mode: str = ""):
        return fast, mode

    def ours(fast: bool = False, either: bool | str = True, root: str | os.PathLike | None = None):
        return fast, either, root

    def numbers(size: int = 1, rate: float | None = None, name: str = ""):
        return size, rate, name

    ours.__module__ = numbers.__module__ = "segfast.datasets"
    for size, rate in ((2, 1), (np.int64(2), np.float32(1)), (2.0, None), (2, 0.5)):
        assert THINGS.build(dict(type=numbers, size=size, rate=rate))[:2] == (size, rate)
    for size in ("2", 1.5, [2], {}, float("nan"), None):
        assert message(dict(type=numbers, size=size)) == (
            f"model.size: numbers expects a whole number, got {size!r}"
        )
    for rate in ("2", [2], {}):
        text = message(dict(type=numbers, rate=rate))
        assert text == f"model.rate: numbers expects None or a number, got {rate!r}"
    assert THINGS.build(dict(type=numbers, name=5))[2] == "5"
    assert THINGS.build(dict(type=theirs, fast="inplace", mode=3)) == ("inplace", 3)
    for word in ("no", "off", "False", ""):
        assert f"expects True or False, got {word!r}" in message(dict(type=theirs, fast=word))
    for value in ("inplace", [], {}, 2, 0.5):
        assert message(dict(type=ours, fast=value)).startswith("model.fast: ours expects True")
    for value in (True, 0, 1, None):
        assert THINGS.build(dict(type=ours, fast=value))[0] is value
    assert THINGS.build(dict(type=ours, either="auto", root=2024)) == (False, "auto", "2024")


def test_dotted_path_errors():
    assert "no module named 'no_such_package'" in message(dict(type="no_such_package.Net"))
    hint = message(dict(type="torch.nn.Conv2D"))
    assert hint.startswith("model.type: torch.nn has no 'Conv2D' (did you mean Conv2d")


def test_register_duplicates():
    registry = Registry("thing")
    registry.register_module(module=Leaf)
    for module in (Leaf, Head):
        with pytest.raises(KeyError, match="Leaf is already registered as a thing"):
            registry.register_module(name="Leaf", module=module)
    registry.register_module(name="Leaf", force=True, module=Head)
    assert registry.get("Leaf") is Head
    registry.register_module(name=["a", "b"], module=Leaf)
    assert "a" in registry
    assert "b" in registry
    assert len(registry) == 3
    assert registry.module_dict["a"] is Leaf


def test_the_decorator_has_parentheses():
    registry = Registry("thing")
    with pytest.raises(TypeError, match=r"@register_module\(\) has parentheses"):

        @registry.register_module
        class Bare:
            pass

    with pytest.raises(TypeError, match="force as a bool"):
        registry.register_module("x", "y")
    with pytest.raises(TypeError, match="a class or a function"):
        registry.register_module("x", module=3)
    assert not list(registry)


def test_default_args_and_scope_keys():
    cfg = dict(type="Leaf", _scope_="mmseg")
    assert THINGS.build(cfg, default_args=dict(size=4, type="Head")).size == 4
    assert THINGS.build(dict(size=2), default_args=dict(size=4, type="Leaf")).size == 2
    assert cfg == dict(type="Leaf", _scope_="mmseg")


@pytest.mark.parametrize("scope", ["mmseg", "mmengine", "mmcv", "mmagic", "segfast"])
def test_names_of_packages_that_are_not_there_are_ours(scope, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("Leaf", "Head"):
        assert THINGS.get(f"{scope}.{name}") is THINGS.get(name)
    with pytest.raises(ConfigError):
        THINGS.get(f"{scope}.Other")
    theirs = types.ModuleType(scope)
    theirs.Leaf = type("Leaf", (), {})
    monkeypatch.setitem(sys.modules, scope, theirs)
    assert THINGS.get(f"{scope}.Leaf") is theirs.Leaf
    assert THINGS.get(f"{scope}.Head") is Head  # which that package lacks


def test_children_parents_and_locations(tmp_path, monkeypatch):
    parent = Registry("thing", scope="up")
    child = Registry("thing", parent=parent, scope="down")
    parent.register_module(module=Leaf)
    child.register_module(module=Head)
    assert child.get("Leaf") is child.get("up.Leaf") is parent.get("Leaf") is Leaf
    assert parent.get("down.Head") is child.get("down.Head") is Head
    with pytest.raises(ConfigError, match="unknown thing 'Head'"):
        parent.get("Head")
    with pytest.raises(KeyError):
        Registry("thing", parent=parent, scope="down")
    (tmp_path / "registers_late.py").write_text(
        "import test_late\ntest_late.R.register_module('x', module=dict)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    holder = types.ModuleType("test_late")
    monkeypatch.setitem(sys.modules, "test_late", holder)
    holder.R = Registry("thing", locations=["registers_late"])
    assert holder.R.get("x") is dict


def test_a_build_func_builds():
    def build(cfg, registry, default_args=None, **more):
        return cfg, registry.name, more

    registry = Registry("thing", build_func=build)
    assert registry.build(dict(type="x"), a=1) == (dict(type="x"), "thing", {"a": 1})


def test_a_list_of_models_is_a_sequence():
    conv = dict(type="torch.nn.Conv2d", in_channels=1, out_channels=1, kernel_size=1)
    net = MODELS.build([conv, dict(type="torch.nn.ReLU")])
    assert isinstance(net, torch.nn.Sequential)
    assert [type(part).__name__ for part in net] == ["Conv2d", "ReLU"]
    with pytest.raises(ConfigError, match=r"^net\.1\.type: unknown model 'Relu'"):
        MODELS.build([conv, dict(type="Relu")], path="net")
    with pytest.raises(ConfigError, match="expected a dict"):
        MODELS.build([])


@pytest.mark.parametrize(
    "name",
    [".", "a..b", "torch.nn.", ".nn", "segfast.__main__.x", "torch.nn.Module.__class__", "a\0.b"],
)
def test_what_is_no_path(name):
    assert message(dict(type=name)).startswith("model.type: ")
    assert "no part of a path" in message(dict(type=name)) or "nor a dotted path" in message(
        dict(type=name)
    )


def test_a_module_that_lacks_another(tmp_path, monkeypatch):
    (tmp_path / "lacks_another.py").write_text("import no_such_thing_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match="cannot import lacks_another: ModuleNotFoundError"
    ) as caught:
        THINGS.build(dict(type="lacks_another.Net"))
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_the_standard_library_is_no_type():
    for name in (
        "os.system",
        "torch.os.system",
        "subprocess.run",
        "builtins.eval",
        "torch.nn.functional.warnings.warn",
    ):
        with pytest.raises(ConfigError, match=r"^type: .* is of Python's standard library"):
            THINGS.build(dict(type=name, command="true"))
