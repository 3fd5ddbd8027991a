"""Python configs are code, and are run: with variables overridden, with `_base_` at hand. Run none you distrust."""

# SPDX-License-Identifier: Apache-2.0

import ast
import copy
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from segfast.config.keys import KNOWN_KEYS, RUNNER_KEYS, check_keys
from segfast.config.merge import plain_copy
from segfast.config.variables import base_expressions
from segfast.errors import ConfigError


class Base(dict):
    """What a file inherits, as it sees it: `_base_.model.backbone` is `_base_["model"]["backbone"]`."""

    def __getattr__(self, name: str) -> Any:
        """The entry of that name."""
        if name in self:
            return self[name]
        raise AttributeError(f"the bases have no {name!r}, only {', '.join(map(str, self))}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the entry of that name."""
        self[name] = value


class PythonFile:
    """A Python config that was parsed but not run.

    Args:
        path: for messages, and `__file__` in the file.
        text: its text, variables filled in.

    Raises:
        ConfigError: it is no Python, or no config that can be read here.
    """

    def __init__(self, path: Path, text: str) -> None:
        """Parse, and find the bases."""
        self.path = path
        try:
            self.tree = ast.parse(base_expressions(text), filename=str(path))
        except SyntaxError as error:
            raise ConfigError("", f"{path}:{error.lineno}: {error.msg}") from error
        except (ValueError, MemoryError, RecursionError) as error:  # a null byte, or too deep
            problem = " ".join(str(error).split()) or "nested too deeply"
            raise ConfigError("", f"{path}: cannot be parsed as Python: {problem}") from None
        self.bases = self._take_bases()
        for node in self.tree.body:
            if isinstance(node, ast.With) and "read_base" in ast.unparse(node.items[0]):
                hint = "(hint: _base_ = ['base.py'] names bases)"
                raise ConfigError("", f"{path}: `with read_base()` cannot be read here {hint}")

    def run(
        self, base: Mapping[str, Any], overrides: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
        """Execute the file.

        Args:
            base: what its bases hold; the file sees it as `_base_` and may change it.
            overrides: values that take the place of those its top-level variables are set to. A dict for a key of
                the Runner is left for later: it merges.

        Returns:
            What the file sets, the base as the file left it, and the names of the overrides that were used.

        Raises:
            ConfigError: the file raised an exception, or sets a misspelt key.
        """
        used = self._replace(overrides)
        inherited = _readable(base)
        namespace: dict[str, Any] = {
            "__file__": str(self.path),
            "__name__": "segfast_config",
            "__overrides__": copy.deepcopy(dict(overrides)),
            "_base_": inherited,
        }
        code = compile(ast.fix_missing_locations(self.tree), str(self.path), "exec")
        try:
            exec(code, namespace)  # a Python config is code
        except Exception as error:
            raise ConfigError("", f"{self.path}: {type(error).__name__}: {error}") from error
        cfg = {
            key: plain_copy(value)
            for key, value in namespace.items()
            if not key.startswith("_")
            and not isinstance(value, ModuleType)
            and (key in RUNNER_KEYS or not callable(value))
        }
        check_keys(
            (key for key in cfg if key not in self._loaded()), str(self.path), variables=True
        )
        return cfg, plain_copy(inherited), used

    def _take_bases(self) -> Any:
        """The value of `_base_ = ...`, which leaves the file."""
        for node in self.tree.body:
            if _assigned_name(node) == "_base_":
                self.tree.body.remove(node)
                try:
                    return ast.literal_eval(node.value)  # type: ignore[attr-defined]
                except ValueError as error:
                    problem = "_base_ is a path or a list of paths, written out"
                    raise ConfigError("", f"{self.path}:{node.lineno}: {problem}") from error
        return []

    def _replace(self, overrides: Mapping[str, Any]) -> set[str]:
        """Set overridden variables from `__overrides__` instead; which ones."""
        used = set()
        for node in self.tree.body:
            name = _assigned_name(node)
            if name not in overrides:
                continue
            if name in KNOWN_KEYS and isinstance(overrides[name], Mapping):
                continue
            value = ast.parse(f"__overrides__[{name!r}]", mode="eval").body
            node.value = ast.copy_location(value, node)  # type: ignore[attr-defined]
            used.add(name)
        return used

    def _loaded(self) -> set[str]:
        """The names that the file uses itself."""
        return {
            node.id
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }


def _assigned_name(node: ast.stmt) -> Any:
    """The variable of a plain statement `name = value` or `name: type = value`."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        return getattr(node.targets[0], "id", None)
    return getattr(node.target, "id", None) if isinstance(node, ast.AnnAssign) else None


def _readable(value: Any) -> Any:
    """A copy whose dicts are `Base`."""
    if isinstance(value, Mapping):
        return Base({key: _readable(entry) for key, entry in value.items()})
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(_readable(entry) for entry in value)
    return value
