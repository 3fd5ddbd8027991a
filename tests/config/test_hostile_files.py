"""Configs that were made to hurt: tags, bombs, nesting, sizes, paths. Each is one line, soon, and nothing runs."""

# SPDX-License-Identifier: Apache-2.0
import json
import time

import pytest

from segfast.config import load_config, parse_override
from segfast.config.files import MAX_BYTES
from segfast.errors import ConfigError


def refused(path, text):
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=text) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert time.perf_counter() - start < 20


def laughs(levels, width=10):
    lines = ["model:", f"  a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


def merges(levels):
    """The same by way of merge keys, which yaml copies while it constructs."""
    lines = ["model:", "  a0: &a0 {k: 1}"]
    lines += [f"  a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 8)}]}}" for i in range(1, levels)]
    return "\n".join(lines)


YAML = {
    "a command": (
        "model: !!python/object/apply:os.system ['touch {marker}']",
        "could not determine a constructor",
    ),
    "a class": ("model: !!python/name:os.system", "could not determine a constructor"),
    "an object": (
        "model: !!python/object/new:subprocess.Popen [['touch', '{marker}']]",
        "could not determine",
    ),
    "a module": ("model: !!python/module:antigravity", "could not determine"),
    "laughs": (laughs(12), "more than 100000 entries"),
    "merges": (merges(12), "more than 100000 entries"),
    "in itself": ("model: &a {{b: *a}}", "nested deeper"),
    "deep": ("model: " + "[" * 3000 + "]" * 3000, "nested deeper"),
    "deeper than allowed": ("model: " + "[" * 60 + "]" * 60, "nested deeper"),
    "wrong bool": ("model: !!bool nonsense", "nonsense"),
    "wrong time": ("model: !!timestamp nonsense", "."),
    "wrong int": ("model: !!int ''", "."),
    "impossible date": ("model: 2020-99-99", "."),
    "huge number": ("seed: " + "9" * 10_000, "."),
    "several documents": ("model: 1\n---\nmodel: 2", "single document"),
    "nothing": ("", "expected keys and values"),
}


@pytest.mark.parametrize("name", YAML)
def test_yaml(tmp_path, name):
    text, reason = YAML[name]
    marker = tmp_path / "executed"
    path = tmp_path / "c.yaml"
    path.write_text(text.replace("{marker}", str(marker)).replace("{{", "{").replace("}}", "}"))
    refused(path, reason)
    assert not marker.exists()


def test_aliases_in_reason_still_work(tmp_path):
    (tmp_path / "c.yaml").write_text("val_cfg: &a {x: [1, 2]}\ntest_cfg: {<<: *a, y: 3}")
    assert load_config(tmp_path / "c.yaml")["test_cfg"] == {"x": [1, 2], "y": 3}


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_json_and_toml(tmp_path, suffix):
    path = tmp_path / f"c.{suffix}"
    deep = "[" * 5000 + "]" * 5000
    path.write_text(f'{{"model": {deep}}}' if suffix == "json" else f"model = {deep}")
    refused(path, "nested deeper")
    number = "9" * 10_000
    path.write_text(f'{{"model": {number}}}' if suffix == "json" else f"model = {number}")
    refused(path, "digits")
    path.write_text(json.dumps([1]) if suffix == "json" else "model = ")
    refused(path, ".")


@pytest.mark.parametrize("suffix", ["yaml", "json", "toml", "py"])
def test_large_files_and_files_that_are_no_text(tmp_path, suffix):
    path = tmp_path / f"c.{suffix}"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    refused(path, f"a config has at most {MAX_BYTES}")
    path.write_bytes(b"\xff\xfe\x00")
    refused(path, "utf-8")


def test_only_python_runs_python(tmp_path):
    """What yaml, toml and json inherit from is read, too."""
    marker = tmp_path / "executed"
    (tmp_path / "base.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()")
    for name, text in (
        ("c.yaml", "_base_: base.py"), ("c.json", '{"_base_": "base.py"}'), ("c.toml", '_base_ = "base.py"'),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        refused(tmp_path / name, r"base\.py is Python and would run")
    (tmp_path / "d.yaml").write_text("_base_: c.yaml")
    with pytest.raises(ConfigError, match="would run"):
        load_config(tmp_path / "d.yaml")
    assert not marker.exists()
    (tmp_path / "c.py").write_text("_base_ = 'base.py'")
    load_config(tmp_path / "c.py")
    assert marker.exists()


def test_bases_that_lead_to_ever_more_files(tmp_path):
    """Two files a level, each naming both of the next: few files, 2^20 ways through them."""
    for level in range(20):
        for side in "ab":
            text = f"_base_: [{level + 1}a.yaml, {level + 1}b.yaml]" if level < 19 else "{}"
            (tmp_path / f"{level}{side}.yaml").write_text(text)
    refused(tmp_path / "0a.yaml", "more than 100 files")


def test_bases_that_double_their_bases(tmp_path):
    (tmp_path / "0.yaml").write_text("x: [1, 1]")
    for level in range(1, 30):
        refers = "{{_base_.x}}"
        text = f"_base_: {level - 1}.yaml\nx: [{refers}, {refers}]"
        (tmp_path / f"{level}.yaml").write_text(text)
    with pytest.raises(ConfigError, match="more than 100000 entries"):
        load_config(tmp_path / "29.yaml")


@pytest.mark.parametrize("name", ["segfast::../../x.yaml", "segfast::/etc/x.yaml", "a.b::x.yaml"])
def test_a_package_s_configs_are_its_own(tmp_path, name):
    (tmp_path / "c.yaml").write_text(f"_base_: '{name}'")
    refused(tmp_path / "c.yaml", r"expected package::path")


@pytest.mark.parametrize("value", ["(" * 5000, "[" * 100_000, "-" * 100_000 + "1", "9" * 10_000])
def test_overrides_are_read_or_stay_text(value):
    assert parse_override(f"a={value}")[0] == "a"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("c.toml", "a" + ".a" * 300_000 + "=1", "a key nested deeper than 50 levels"),
        ("c.toml", "[" + "a." * 300_000 + "a]", "a key nested deeper than 50 levels"),
        ("c.toml", "x = {y = 1, " + "a." * 300_000 + "a = 1}", "a key nested deeper than 50"),
        ("c.yaml", "model: [" + "a," * 500_000 + "]", "more than 100000 entries"),
        ("c.yaml", "model:\n" + "- - - - a\n" * 100_000, "more than 100000 entries"),
        ("c.yaml", "model: 5\nwork_dir: '{{$A:" + " " * 500_000 + "'", "model"),
        ("c.yaml", "model: 5\nwork_dir: '" + "{{$A:b" * 100_000 + "'", "model"),
        ("c.yaml", "_base_: '__main__::x.yaml'", "no such config in an installed package"),
        ("c.yaml", 'a: 1\n_base_: "a\\0b::x.yaml"', "no such config in an installed package"),
        ("c.yaml", "_base_: '" + "a" * 5000 + ".yaml'", "."),
        ("c.yaml", '_base_: "a\\0.yaml"', "."),
        ("c.py", "x = " + "-" * 50_000 + "1", "cannot be parsed as Python"),
    ],
)
def test_long_texts_and_odd_bases(tmp_path, name, text, problem):
    path = tmp_path / name
    path.write_text(text)
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=problem) as caught:
        load_config(path)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 20


def test_dots_in_texts_are_no_nesting(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(f'work_dir = "{"a." * 100}"\n[model]\ntype = "a.b"\nx = [1.5, 2.5]\n')
    assert load_config(path)["model"] == {"type": "a.b", "x": [1.5, 2.5]}


def test_defaults_of_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFAST_TEST_NAME", "set")
    path = tmp_path / "c.yaml"
    path.write_text(
        "work_dir: '{{ $SEGFAST_TEST_NO : a/b-c }}'\nexperiment_name: {{$SEGFAST_TEST_NAME:}}\n"
        "load_from: {{ '$SEGFAST_TEST_NO:x' }}\n"
    )
    text = path.read_text().replace("{{ '$SEGFAST_TEST_NO:x' }}", "{{'$SEGFAST_TEST_NO:x'}}")
    path.write_text(text)
    assert load_config(path) == {"work_dir": "a/b-c", "experiment_name": "set", "load_from": "x"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", 5), ("model", "x"), ("model", [1]), ("train_cfg", ""), ("train_dataloader", 5),
        ("optim_wrapper", True), ("default_hooks", "abc"), ("default_hooks", [1]), ("env_cfg", 5),
        ("custom_hooks", 5), ("custom_hooks", {"a": 1}), ("param_scheduler", 5), ("custom_imports", ["a"]),
        ("randomness", [1, 2]), ("resume", "maybe"), ("quiet", []), ("work_dir", [1]), ("load_from", {"a": 1}),
        ("val_evaluator", "mIoU"), ("visualizer", 1.5), ("log_processor", 3), ("device", [1]),
    ],
)  # fmt: skip
def test_sections_are_of_their_kind(key, value):
    with pytest.raises(ConfigError, match=rf"^{key}: expected ") as caught:
        load_config({key: value})
    assert "\n" not in str(caught.value)
    assert load_config({key: None}) == {key: None}


def test_numbers_that_are_names():
    assert load_config({"work_dir": 2024, "experiment_name": 7}) == {
        "work_dir": "2024", "experiment_name": "7",
    }  # fmt: skip


@pytest.mark.parametrize("key", ["model..x", ".model", "model.", "."])
def test_empty_parts_of_an_override(key):
    with pytest.raises(ConfigError):
        load_config({"model": {"type": "A"}}, {key: 1})
