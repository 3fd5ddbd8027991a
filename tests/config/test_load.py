"""Configs: files, overrides, misspelt keys, and the dump that reloads."""

# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from segfast.config import dump_config, load_config
from segfast.errors import ConfigError

PYTHON = """
data_root = "data"
crop = (4, 4)
pipeline = [dict(type="Crop", size=crop), dict(type="Pack")]
model = dict(type="Segmentor", net=dict(type="Net", width=3))
train_dataloader = dict(dataset=dict(data_root=data_root + "/x", pipeline=pipeline))
"""


@pytest.fixture
def python_file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(PYTHON)
    return path


def test_python_config(python_file):
    cfg = load_config(python_file)
    assert set(cfg) == {"model", "train_dataloader"}  # plain variables are not keys
    assert cfg["train_dataloader"]["dataset"]["data_root"] == "data/x"


def test_a_variable_is_overridden_before_the_file_runs(python_file):
    cfg = load_config(python_file, {"data_root": "/big", "crop": (9, 9), "model.net.width": 5})
    assert cfg["train_dataloader"]["dataset"]["data_root"] == "/big/x"
    assert cfg["train_dataloader"]["dataset"]["pipeline"][0]["size"] == (9, 9)
    assert cfg["model"]["net"] == {"type": "Net", "width": 5}


def test_variables_may_be_paths_and_may_be_annotated(tmp_path):
    path = tmp_path / "config.py"
    path.write_text('root: str = "data"\nval_dataloader = dict(dataset=dict(data_root=root))\n')
    cfg = load_config(path, {"root": tmp_path})
    assert cfg["val_dataloader"]["dataset"]["data_root"] == tmp_path


def test_a_variable_that_is_used_up_cannot_be_changed_in_part(python_file):
    with pytest.raises(ConfigError, match=r"^pipeline.0.size: pipeline is a variable .* used up"):
        load_config(python_file, {"pipeline.0.size": 3})


def test_mmengine_configs_keep_their_helper_variables():
    class Config:  # as mmengine's: no dict, but it has to_dict
        def to_dict(self):
            return {"model": {"type": "A"}, "norm_cfg": {"type": "SyncBN"}, **self.extra}

    source = Config()
    source.extra = {
        "crop_size": (512, 512),
        "data_root": "data",
        "optimizer": {},
        "train_dataset": {},
    }
    assert load_config(source, {"model.width": 1}) == {"model": {"type": "A", "width": 1}}
    source.extra = {"train_dataloder": {}}
    with pytest.raises(ConfigError, match=r"^train_dataloder: unknown key .*train_dataloader"):
        load_config(source)


def test_overrides_reach_into_lists_and_create_dicts(python_file):
    cfg = load_config(
        python_file, {"train_dataloader.dataset.pipeline.1.keys": ["a"], "train_cfg.max_iters": 3}
    )
    assert cfg["train_dataloader"]["dataset"]["pipeline"][1] == {"type": "Pack", "keys": ["a"]}
    assert cfg["train_cfg"] == {"max_iters": 3}
    for key, text in [
        ("train_dataloader.dataset.pipeline.7.keys", "position below 2"),
        ("model.type.x", "model.type is 'Segmentor', it has no keys"),
        ("modle.net", r"^modle.net: unknown key \(did you mean model\?\)"),
    ]:
        with pytest.raises(ConfigError, match=text):
            load_config(python_file, {key: 1})


def test_a_dict_merges_and_may_replace(python_file):
    cfg = load_config(python_file, {"model": {"net": {"width": 9}}})
    assert cfg["model"] == {"type": "Segmentor", "net": {"type": "Net", "width": 9}}
    cfg = load_config(python_file, {"model.net": {"_delete_": True, "type": "Other"}})
    assert cfg["model"]["net"] == {"type": "Other"}
    cfg = load_config({"model": {"sizes": (1, 2)}}, {"model.sizes.1": 5})
    assert cfg["model"]["sizes"] == (1, 5) or cfg["model"]["sizes"] == [1, 5]


def test_the_callers_dict_is_left_alone():
    source = {"model": {"type": "A"}}
    load_config(source, {"model.width": 3})
    assert source == {"model": {"type": "A"}}


@pytest.mark.parametrize("name", ["config.yaml", "config.json", "config.toml"])
def test_other_formats(tmp_path, name):
    path = tmp_path / name
    text = '[model]\ntype = "A"' if name.endswith("toml") else json.dumps({"model": {"type": "A"}})
    path.write_text(text)
    assert load_config(path) == {"model": {"type": "A"}}
    path.write_text(text.replace("model", "modell"))
    with pytest.raises(ConfigError, match=r"^modell: unknown key in .*did you mean model"):
        load_config(path)


def test_yaml_numbers_with_an_exponent(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model: {lr: 1e-3, name: 1e-x, eps: 1.5E+2, n: 10, date: e-3}")
    model = load_config(path)["model"]
    assert model == {"lr": 0.001, "name": "1e-x", "eps": 150.0, "n": 10, "date": "e-3"}


def test_yaml_cannot_execute(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text(f"model: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']")
    with pytest.raises(ConfigError):
        load_config(path)
    assert not (tmp_path / "made").exists()


def test_files_that_cannot_be_read(tmp_path):
    for name, content, text in [
        ("none.py", None, "no config file"),
        ("broken.py", "model = dict(", r"broken.py:1: "),
        ("raises.py", "model = 1 / 0", "ZeroDivisionError"),
        ("misspelt.py", "modle = dict(type='A')", r"^modle: unknown key .*did you mean model"),
        ("bad.yaml", "a: [", "bad.yaml: "),
        ("list.yaml", "[1]", "keys and values at the top, got list"),
        ("config.ini", "", "expected .py, .yaml"),
    ]:
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match=text):
            load_config(tmp_path / name)


def test_dump_reloads(tmp_path, python_file):
    cfg = load_config(python_file)
    (tmp_path / "dump.yaml").write_text(dump_config(cfg))
    again = load_config(tmp_path / "dump.yaml")
    assert again["model"] == cfg["model"]
    assert again["train_dataloader"]["dataset"]["pipeline"][0]["size"] == [
        4,
        4,
    ]  # tuples become lists


def test_demo_is_the_default():
    assert load_config()["train_dataloader"]["dataset"]["type"] == "ShapesDataset"
