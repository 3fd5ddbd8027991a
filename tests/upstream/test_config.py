"""Configs beside MMEngine's: inheritance, overrides, values of the command line; and its Config object trains here."""

# SPDX-License-Identifier: Apache-2.0

import copy
import pprint
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmengine")
pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config, DictAction

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_data import folder_config, make_folder

import segfast
from segfast.config import load_config, parse_override
from segfast.config.files import read_file
from segfast.config.merge import override
from segfast.errors import ConfigError
from segfast.runner import Runner

KEYS = ("model", "train_cfg", "val_cfg", "net", "size", "k")
scalar = st.one_of(st.integers(-5, 5), st.booleans(), st.none(), st.sampled_from(["x", "y z"]))
leaf = st.one_of(scalar, st.lists(scalar, max_size=3), st.tuples(scalar, scalar))
tree = st.recursive(
    leaf, lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=4), max_leaves=12
)
top = st.dictionaries(st.sampled_from(KEYS), tree, max_size=4)
TWICE = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def marked(draw, value, chance=6):
    """The same tree with `_delete_` in some of its dicts."""
    if not isinstance(value, dict):
        return value
    value = {key: marked(draw, entry) for key, entry in value.items()}
    if draw(st.integers(1, chance)) == 1:
        value["_delete_"] = True
    return value


@st.composite
def inheritance(draw):
    """A base and a child that deletes here and there; only what the base has can be deleted."""
    base, child = draw(top), draw(top)
    return base, {key: marked(draw, value) for key, value in child.items()}


def write(path, cfg, head=""):
    lines = [f"{key} = {pprint.pformat(value, sort_dicts=False)}" for key, value in cfg.items()]
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def without_marks(value):
    """MMEngine leaves the mark where the base has no such key."""
    if isinstance(value, dict):
        return {k: without_marks(v) for k, v in value.items() if k != "_delete_"}
    return value


@TWICE
@given(inheritance())
def test_inheritance(tmp_path, pair):
    base, child = pair
    write(tmp_path / "base.py", base)
    path = write(tmp_path / "child.py", child, "_base_ = ['./base.py']")
    try:
        theirs = without_marks(Config.fromfile(path)._cfg_dict.to_dict())
    except TypeError:  # a dict over something else
        with pytest.raises(ConfigError, match="cannot inherit from the base's"):
            read_file(path, {})
        return
    ours, _ = read_file(path, {})
    assert ours == theirs
    assert types(ours) == types(theirs)


def types(value):
    if isinstance(value, dict):
        return {key: types(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [types(entry) for entry in value]
    return type(value)


dotted = st.lists(st.sampled_from([*KEYS, "0", "1"]), min_size=1, max_size=4).map(".".join)


@TWICE
@given(top, dotted, tree)
def test_overrides(cfg, key, value):
    theirs = Config(copy.deepcopy(cfg))
    try:
        theirs.merge_from_dict({key: copy.deepcopy(value)})
    except (TypeError, KeyError, AttributeError):
        theirs = None  # through a value that has no keys, or past the end of a list
    ours = copy.deepcopy(cfg)
    if theirs is None:
        return  # ours may refuse, or replace None by a dict
    override(ours, key, copy.deepcopy(value))
    assert ours == theirs._cfg_dict.to_dict()


word = st.sampled_from(["1", "-2", "1.5", "1e-3", "true", "False", "None", "road", "a/b.c", "x_1"])
listed = st.recursive(
    word,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({','.join(parts)})"),
    ),
    max_leaves=6,
)
# Theirs takes the brackets off "[1],[2]", as if they belonged together.
rows = st.lists(listed, min_size=1, max_size=3).map(lambda parts: ",".join([*parts, "last"]))
texts = st.one_of(listed, rows)


@TWICE
@given(texts)
def test_values_of_the_command_line(text):
    theirs = DictAction._parse_iterable(text)
    ours = parse_override(f"key={text}")[1]
    assert ours == theirs
    assert types(ours) == types(theirs)


def test_references_and_file_variables(tmp_path):
    write(tmp_path / "base.py", {"sizes": (4, 8), "model": {"k": 1, "net": {"w": [1, 2]}}})
    path = tmp_path / "child.py"
    path.write_text("""
_base_ = 'base.py'
model = dict(k={{ _base_.sizes }}, w=_base_.model.net.w[1])
train_cfg = dict(a={{_base_.model.net}}, name='{{ fileBasenameNoExtension }}', folder='{{fileDirname}}')
""")
    assert read_file(path, {})[0] == Config.fromfile(path)._cfg_dict.to_dict()


def test_the_same_run_from_an_mmengine_config(tmp_path):
    cfg = folder_config(make_folder(tmp_path / "data"))
    cfg = {**cfg, "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 4, "val_interval": 4}}
    plain = segfast.train(cfg, work_dir=tmp_path / "a")
    theirs = Config({**cfg, "crop_size": (4, 4), "env_cfg": {"cudnn_benchmark": True}})
    wrapped = segfast.train(theirs, work_dir=tmp_path / "b")
    assert wrapped.metrics == plain.metrics
    runner = Runner.from_cfg(Config({**cfg, "work_dir": str(tmp_path / "c"), "crop_size": (4, 4)}))
    runner.train()
    assert runner.metrics == plain.metrics
    assert load_config(theirs)["model"] == load_config(cfg)["model"]
