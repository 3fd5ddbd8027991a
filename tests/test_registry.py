"""The registry: names to objects, and messages that name the key."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from segfast.errors import ConfigError, DataError
from segfast.registry import Registry

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


def test_other_errors_pass():
    def broken():
        raise ZeroDivisionError

    def bad_data():
        raise DataError("no such folder")

    def bug():
        return len(3)

    with pytest.raises(ZeroDivisionError):
        THINGS.build(dict(type=broken))
    with pytest.raises(DataError, match=r"^no such folder$"):
        THINGS.build(dict(type=bad_data), path="model")
    with pytest.raises(TypeError, match="has no len"):
        THINGS.build(dict(type=bug))


def test_dotted_path_errors():
    assert "no module named 'no_such_package'" in message(dict(type="no_such_package.Net"))
    hint = message(dict(type="torch.nn.Conv2D"))
    assert hint.startswith("model.type: torch.nn has no 'Conv2D' (did you mean Conv2d")


def test_register_duplicates():
    registry = Registry("thing")
    registry.register_module(module=Leaf)
    registry.register_module(module=Leaf)  # the same object again is no conflict
    with pytest.raises(KeyError, match="already registered"):
        registry.register_module(name="Leaf", module=Head)
    registry.register_module(name="Leaf", force=True, module=Head)
    assert registry.get("Leaf") is Head
    registry.register_module(name=["a", "b"], module=Leaf)
    assert "a" in registry
    assert "b" in registry


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
