"""Configs: read a file or dict, apply overrides, refuse misspelt keys, write the resolved result.

A Python config is executed; yaml, toml and json never execute anything.
"""

# SPDX-License-Identifier: Apache-2.0

import ast
import copy
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from segfast.errors import ConfigError
from segfast.registry import did_you_mean

DEMO = Path(__file__).with_name("demo_config.py")

# What Runner.from_cfg reads, and keys of the same world that may stay in a file without being read here.
RUNNER_KEYS = {
    "model", "data_preprocessor", "train_dataloader", "val_dataloader", "test_dataloader",
    "train_cfg", "val_cfg", "test_cfg", "optim_wrapper", "param_scheduler", "val_evaluator",
    "test_evaluator", "default_hooks", "custom_hooks", "load_from", "resume", "visualizer",
    "randomness", "work_dir", "device", "experiment_name",
}  # fmt: skip
TOLERATED_KEYS = {
    "default_scope", "env_cfg", "launcher", "log_level", "log_processor", "vis_backends",
    "auto_scale_lr", "tta_model", "tta_pipeline", "cfg",
}  # fmt: skip


def load_config(source: Any = None, overrides: Mapping[str, Any] | None = None) -> dict:
    """Read a config and apply overrides.

    Args:
        source: a dict (an mmengine Config is one), a path ending in .py, .yaml, .yml, .toml or .json, or
            None for the built-in demo.
        overrides: dotted keys -> values, `{"train_cfg.max_iters": 400}`; digits index lists. A key that
            names a top-level variable of a Python config replaces it before the file runs, so that
            everything computed from it follows.

    Returns:
        A plain dict holding only keys that the Runner reads.

    Raises:
        ConfigError: the file is missing or malformed, or a key is unknown.
    """
    overrides = dict(overrides or {})
    if source is None:
        source = DEMO
    if hasattr(source, "to_dict"):  # mmengine's Config, which keeps the file's helper variables
        tree = plain_copy(source.to_dict())
        source = {key: tree[key] for key in tree if not _is_helper(key)}
    if isinstance(source, Mapping):
        cfg = plain_copy(source)
        _check_keys(cfg, "config")
    else:
        cfg, used = _read_file(Path(source), overrides)
        overrides = {key: value for key, value in overrides.items() if key not in used}
    for key, value in overrides.items():
        _override(cfg, key, copy.deepcopy(value))
    return {key: value for key, value in cfg.items() if key in RUNNER_KEYS}


def parse_override(text: str) -> tuple[str, Any]:
    """`key.path=value` of the command line -> key and Python value.

    Numbers, booleans, None or null, quoted strings, lists, tuples and dicts are read as such; anything else
    is the string itself.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(text, "expected key.path=value (hint: no spaces around '=')")
    words = {"true": True, "false": False, "none": None, "null": None}
    if value.lower() in words:
        return key, words[value.lower()]
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def dump_config(cfg: Mapping[str, Any]) -> str:
    """YAML that `load_config` reads back to the same config; tuples become lists, classes dotted paths."""
    return yaml.safe_dump(_dumpable(cfg), sort_keys=False, allow_unicode=True)


def plain_copy(value: Any) -> Any:
    """A copy made of plain dicts and lists; objects that are already built are the same ones."""
    if isinstance(value, Mapping):
        return {key: plain_copy(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain_copy(entry) for entry in value]
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(plain_copy(entry) for entry in value)
    return value


def _read_file(path: Path, overrides: dict[str, Any]) -> tuple[dict, set[str]]:
    """The config of a file, and the override keys that were applied while it ran."""
    if not path.is_file():
        raise ConfigError(
            "", f"no config file {path} (hint: leave it out to train the built-in demo)"
        )
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".py":
            return _run_python(path, text, overrides)
        if path.suffix in (".yaml", ".yml"):
            cfg = yaml.safe_load(text)
        elif path.suffix == ".toml":
            cfg = tomllib.loads(text)
        elif path.suffix == ".json":
            cfg = json.loads(text)
        else:
            raise ConfigError(
                "", f"{path}: expected .py, .yaml, .yml, .toml or .json, got {path.suffix!r}"
            )
    except (yaml.YAMLError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ConfigError("", f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(cfg, dict):
        raise ConfigError(
            "", f"{path}: expected keys and values at the top, got {type(cfg).__name__}"
        )
    _check_keys(cfg, str(path))
    return cfg, set()


def _run_python(path: Path, text: str, overrides: dict[str, Any]) -> tuple[dict, set[str]]:
    """Execute a Python config with its top-level variables overridden."""
    try:
        tree = ast.parse(text, filename=str(path))
    except SyntaxError as error:
        raise ConfigError("", f"{path}:{error.lineno}: {error.msg}") from error
    used = set()
    for node in tree.body:
        name = _assigned_name(node)
        if name in overrides:
            value = ast.parse(f"__overrides__[{name!r}]", mode="eval").body
            node.value = ast.copy_location(value, node)  # type: ignore[attr-defined]
            used.add(name)
    namespace: dict[str, Any] = {
        "__file__": str(path),
        "__name__": "segfast_config",
        "__overrides__": copy.deepcopy(overrides),
    }
    try:
        exec(
            compile(ast.fix_missing_locations(tree), str(path), "exec"), namespace
        )  # a Python config is code
    except Exception as error:
        raise ConfigError("", f"{path}: {type(error).__name__}: {error}") from error
    loaded = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    cfg = {
        key: plain_copy(value)
        for key, value in namespace.items()
        if not key.startswith("_")
        and not isinstance(value, ModuleType)
        and (key in RUNNER_KEYS or not callable(value))
    }
    for key in cfg:
        if key not in RUNNER_KEYS | TOLERATED_KEYS and key not in loaded and not _is_helper(key):
            raise ConfigError(key, f"unknown key in {path}{did_you_mean(key, RUNNER_KEYS)}")
    return cfg, used


def _assigned_name(node: ast.stmt) -> str | None:
    """The variable of a plain statement `name = value` or `name: type = value`."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        return getattr(node.targets[0], "id", None)
    return getattr(node.target, "id", None) if isinstance(node, ast.AnnAssign) else None


def _is_helper(key: str) -> bool:
    """Whether a top-level name is a variable of the file: neither a key nor a misspelt one."""
    # 0.78 lies between `modle` (0.80) and the honest variable `train_dataset` (0.76).
    known = key in RUNNER_KEYS | TOLERATED_KEYS
    return not known and not did_you_mean(key, RUNNER_KEYS, cutoff=0.78)


def _check_keys(cfg: Mapping[str, Any], where: str) -> None:
    for key in cfg:
        if key not in RUNNER_KEYS | TOLERATED_KEYS:
            raise ConfigError(
                str(key), f"unknown key in {where}{did_you_mean(str(key), RUNNER_KEYS)}"
            )


def _override(cfg: dict, dotted: str, value: Any) -> None:
    """Set one dotted key; dicts on the way are created, list positions must exist."""
    parts = dotted.split(".")
    if parts[0] not in RUNNER_KEYS | TOLERATED_KEYS:
        if parts[0] in cfg:  # changing it now would change nothing
            hint = "give it a whole new value, or override the key that it ends up in"
            raise ConfigError(
                dotted, f"{parts[0]} is a variable that the file has used up ({hint})"
            )
        raise ConfigError(dotted, f"unknown key{did_you_mean(parts[0], RUNNER_KEYS | set(cfg))}")
    node: Any = cfg
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        here = ".".join(parts[: depth + 1])
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigError(
                    here, f"expected a position below {len(node)} in this list, got {part!r}"
                )
            if last:
                node[int(part)] = value
            else:
                node = node[int(part)]
        elif isinstance(node, dict):
            if last:
                node[part] = value
            else:
                if node.get(part) is None:
                    node[part] = {}
                node = node[part]
        else:
            raise ConfigError(here, f"{'.'.join(parts[:depth])} is {node!r}, it has no keys")


def _dumpable(value: Any) -> Any:
    """What YAML can hold: objects that were built by hand appear as their representation."""
    if isinstance(value, Mapping):
        return {
            str(key) if not isinstance(key, int) else key: _dumpable(entry)
            for key, entry in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_dumpable(entry) for entry in value]
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, type) or callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
    return str(value)
