"""Values of the command line, and configs as text."""

# SPDX-License-Identifier: Apache-2.0

import pytest

from segfast.config import dump_config, load_config, parse_override, pretty_text
from segfast.errors import ConfigError


@pytest.mark.parametrize(("text", "value"), [
    ("3", 3), ("-3", -3), ("3e-4", 3e-4), ("1e-3", 1e-3), ("true", True), ("False", False), ("None", None), ("null", None),
    ("(1, 2)", (1, 2)), ("[1,'x']", [1, "x"]), ("{'x': 1}", {"x": 1}), ("data/camvid", "data/camvid"), ("'3'", "3"),
    ("", ""), ("a=b", "a=b"), ("1,2,3", [1, 2, 3]), ("road,car", ["road", "car"]), ("[road, car]", ["road", "car"]),
    ("(road,1.5)", ("road", 1.5)), ("[(1,2),[a,b],c]", [(1, 2), ["a", "b"], "c"]), ("'a,b'", "a,b"), ("[]", []),
    ("[none,true]", [None, True]), ("f(1,2)", "f(1,2)"), ("(1,)", (1,)), ("[1,2]", [1, 2]), ("'a','b'", ["a", "b"]), ("yes", True), ("No", False), ("ON", True), ("off", False), ("'no'", "no"), ("none,no", [None, False]),
    ("nonsense", "nonsense"),
])  # fmt: skip
def test_command_line_values(text, value):
    assert parse_override(f"a.b={text}") == ("a.b", value)


@pytest.mark.parametrize("text", ["a.b", "=3"])
def test_what_is_no_override(text):
    with pytest.raises(ConfigError, match=r"expected key.path=value"):
        parse_override(text)


class Net:
    """A class in a config."""


CONFIG = {
    "model": {"type": "Segmentor", "net": {"type": Net, "sizes": (1, 2), 3: [True, None, 1e-5]}},
    "train_cfg": {"max_iters": 10},
}


def test_a_dump_reloads(tmp_path):
    (tmp_path / "dump.yaml").write_text(dump_config(CONFIG))
    again = load_config(tmp_path / "dump.yaml")
    net = again["model"].pop("net")
    assert net["type"].endswith("test_text.Net")
    assert net["sizes"] == [1, 2]  # YAML has no tuples
    assert net[3] == [True, None, 1e-5]
    assert again["train_cfg"] == {"max_iters": 10}


def test_pretty_text_is_a_python_config_that_reloads_exactly(tmp_path):
    plain = {**CONFIG, "model": {"type": "A", "sizes": (1, (2, 3)), 3: [True, None, 1e-5, "x\ny"]}}
    (tmp_path / "dump.py").write_text(pretty_text(plain))
    assert load_config(tmp_path / "dump.py") == plain
