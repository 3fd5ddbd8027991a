"""`_base_`, `_delete_` and variables in config files."""

# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from segfast.config import load_config
from segfast.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    """Writes files and returns the path of the last one."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return path

    return write


def test_python_bases_merge_key_by_key(write):
    path = write(
        base__model_dot_py="width = 3\nmodel = dict(type='A', net=dict(type='N', width=width), tail=[1, 2])",
        base__run_dot_py="train_cfg = dict(max_iters=9, val_interval=3)",
        child_dot_py="""
_base_ = ["base/model.py", "base/run.py"]
model = dict(net=dict(depth=2), tail=[5])
train_cfg = dict(_delete_=True, max_epochs=1)
""",
    )
    assert load_config(path) == {
        "model": {"type": "A", "net": {"type": "N", "width": 3, "depth": 2}, "tail": [5]},
        "train_cfg": {"max_epochs": 1},
    }


def test_what_a_python_file_sees_of_its_bases(write):
    path = write(
        base_dot_py="sizes = (4, 8)\nroot = 'data'\nmodel = dict(type='A', layers=[dict(k=1), dict(k=2)])",
        child_dot_py="""
_base_ = "./base.py"
model = dict(k={{ _base_.sizes }}, first=_base_.model.layers[0].k, quoted="{{_base_.root}}")
train_cfg = dict(max_iters=_base_.sizes[1])
val_cfg = _base_.model
_base_.model.layers[1].k = 7
""",
    )
    cfg = load_config(path)
    assert cfg["model"] == {
        "type": "A", "layers": [{"k": 1}, {"k": 7}], "k": (4, 8), "first": 1, "quoted": "data"
    }  # fmt: skip
    assert cfg["train_cfg"] == {"max_iters": 8}
    assert type(cfg["val_cfg"]) is dict
    assert type(cfg["val_cfg"]["layers"][0]) is dict


def test_overrides_reach_the_variables_of_bases(write):
    path = write(
        base_dot_py="root = 'data'\ntrain_dataloader = dict(dataset=dict(data_root=root + '/x'))",
        child_dot_py="_base_ = 'base.py'\nval_dataloader = dict(dataset=dict(data_root=_base_.root))",
    )
    cfg = load_config(path, {"root": "/big"})
    assert cfg["train_dataloader"]["dataset"]["data_root"] == "/big/x"
    assert cfg["val_dataloader"]["dataset"]["data_root"] == "/big"


@pytest.mark.parametrize("suffix", ["yaml", "json", "toml"])
def test_trees_inherit_too(write, suffix):
    model = {"net": {"width": "{{_base_.sizes.1}}", "name": "{{ fileBasenameNoExtension }}"}}
    text = {
        "yaml": "_base_: base.yaml\nmodel: {net: {width: {{_base_.sizes.1}}, name: '{{fileBasenameNoExtension}}'}}",
        "json": json.dumps({"_base_": ["base.yaml"], "model": model}),
        "toml": "_base_ = ['base.yaml']\n[model.net]\nwidth = {{ _base_.sizes.1 }}\nname = '{{fileBasenameNoExtension}}'",
    }[suffix]  # fmt: skip
    base = "sizes: [4, 8]\nmodel: {type: A, net: {type: N}}"
    cfg = load_config(write(base_dot_yaml=base, **{f"child_dot_{suffix}": text}))
    assert cfg == {"model": {"type": "A", "net": {"type": "N", "width": 8, "name": "child"}}}


def test_python_inherits_from_trees(write):
    path = write(
        base_dot_yaml="model: {type: A}", child_dot_py="_base_ = 'base.yaml'\nmodel = dict(k=1)"
    )
    assert load_config(path) == {"model": {"type": "A", "k": 1}}


def test_yaml_bases_may_hold_variables(write):
    path = write(
        base_dot_yaml="crop: [4, 4]\nmodel: {type: A}",
        child_dot_yaml="_base_: base.yaml\nmodel: {size: '{{_base_.crop}}'}",
    )
    assert load_config(path) == {"model": {"type": "A", "size": [4, 4]}}


def test_a_file_knows_its_own_path(write, tmp_path):
    path = write(
        a_dot_py="work_dir = '{{ fileDirname }}/{{fileBasename}}-{{ fileBasenameNoExtension }}{{fileExtname}}'"
    )
    assert load_config(path)["work_dir"] == f"{tmp_path}/a.py-a.py"


def test_the_environment(write, monkeypatch):
    monkeypatch.setenv("SEGFAST_TEST_ROOT", "/data")
    path = write(
        a_dot_py="model = dict(root='{{$SEGFAST_TEST_ROOT:/x}}/y', n={{'$SEGFAST_TEST_N:80'}}, m={{$SEGFAST_TEST_N:7}})"
    )
    assert load_config(path)["model"] == {"root": "/data/y", "n": 80, "m": 7}
    with pytest.raises(ConfigError, match=r"the environment has no SEGFAST_TEST_N \(hint: set it"):
        load_config(write(b_dot_yaml="model: '{{$SEGFAST_TEST_N:}}'"))


@pytest.mark.parametrize(("files", "text"), [
    ({"a_dot_py": "_base_ = 'none.py'"}, r"no config file .*none.py \(named by .*a.py\)"),
    ({"a_dot_py": "_base_ = ['a.py']"}, r"a.py inherits from itself"),
    ({"b_dot_py": "_base_ = 'a.py'", "a_dot_py": "_base_ = 'b.py'"}, r"a.py inherits from itself, by way of .*b.py"),
    ({"b_dot_py": "k = 1", "c_dot_py": "k = 2", "a_dot_py": "_base_ = ['b.py', 'c.py']"}, r"^k: in two bases"),
    ({"b_dot_py": "model = [1]", "a_dot_py": "_base_ = 'b.py'\nmodel = dict(x=1)"}, r"^model: .* base's list .*_delete_"),
    ({"b_dot_py": "model = dict(x=1)", "a_dot_py": "_base_ = 'b.py'\nmodel = dict(x=_base_.model.y)"}, r"no 'y', only x"),
    ({"b_dot_yaml": "x: 1", "a_dot_yaml": "_base_: b.yaml\nmodel: '{{_base_.y}}'"}, r"the bases have no y"),
    ({"a_dot_py": "_base_ = ['x' + 'y.py']"}, r"a.py:1: _base_ is a path or a list of paths"),
    ({"a_dot_py": "_base_ = 'nopackage::x.py'"}, r"nopackage::x.py: no such config"),
    ({"a_dot_yaml": "_base_: 3"}, r"_base_ is a path or a list"),
    ({"a_dot_py": "with read_base():\n    pass"}, r"with read_base.* cannot be read here .*_base_ ="),
    ({"b_dot_yaml": "modle: {}", "a_dot_yaml": "_base_: b.yaml"}, r"^modle: unknown key .*did you mean model"),
])  # fmt: skip
def test_what_is_refused(write, files, text):
    with pytest.raises(ConfigError, match=text):
        load_config(write(**files))
