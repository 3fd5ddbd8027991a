"""From a class and a config's arguments to an object, or to an error that names the key."""

# SPDX-License-Identifier: Apache-2.0
import difflib
import inspect
import numbers
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from segfast.errors import ConfigError, UserError

_UNEXPECTED_KEYWORD = re.compile(r"got an unexpected keyword argument '(\w+)'")
_BOOLEAN_WORDS = ("true", "false", "yes", "no", "on", "off", "y", "n", "t", "f", "none", "null", "")
_KINDS = {int: "a whole number", float: "a number", bool: "True or False", type(None): "None"}


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The hint ` (did you mean x?)` for the nearest known names, or an empty string."""
    names = sorted(set(known))
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, n=2, cutoff=cutoff)
    if not near:
        return ""
    return f" (did you mean {' or '.join(by_lower[name] for name in near)}?)"


def join_keys(path: str, key: str) -> str:
    """`path.key`, or the key alone at the top."""
    return f"{path}.{key}" if path else key


def _known_arguments(target: Callable) -> tuple[dict[str, inspect.Parameter], bool] | None:
    """The named parameters of a callable, and whether it also takes any other keyword."""
    try:
        parameters = inspect.signature(target).parameters
    except (ValueError, TypeError):
        return None
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {name: p for name, p in parameters.items() if p.kind in kinds}
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return named, takes_any


def _argument_names(target: Callable) -> set[str]:
    """Every argument name a callable may know, those of its base classes included."""
    names: set[str] = set()
    for owner in getattr(target, "__mro__", (target,)):
        known = None if owner is object else _known_arguments(owner)
        names.update(known[0] if known else ())
    return names


def checked_arguments(target: Callable, args: dict, path: str) -> dict:
    """The arguments, after misspelt and missing ones are refused before anything is constructed."""
    for key in args:
        if not isinstance(key, str):
            raise ConfigError(path, f"expected names of arguments, got {key!r}")
    known = _known_arguments(target)
    if known is None:
        return args
    named, takes_any = known
    for key in args:
        if key not in named and not takes_any:
            raise _no_such_argument(target, key, path)
    for name, parameter in named.items():
        if parameter.default is inspect.Parameter.empty and name not in args:
            raise ConfigError(
                join_keys(path, name), f"missing, {_name(target)} needs this argument"
            )
    is_ours = str(getattr(target, "__module__", "")).partition(".")[0] == "segfast"
    return {
        key: _value(args[key], named.get(key), is_ours, join_keys(path, key), target)
        for key in args
    }


def _value(
    value: Any, parameter: inspect.Parameter | None, is_ours: bool, path: str, target: Callable
) -> Any:
    """An argument, a number as text where only text has a meaning; refused where a bool is expected.

    Annotations are believed where they are ours.
    """
    if parameter is None:
        return value
    if isinstance(parameter.default, bool):
        is_word = isinstance(value, str) and value.lower() in _BOOLEAN_WORDS
        wrong = is_ours and parameter.annotation is bool and not _is_flag(value)
        if is_word or wrong:
            raise ConfigError(path, f"{_name(target)} expects True or False, got {value!r}")
    if not is_ours:
        return value
    is_union = typing.get_origin(parameter.annotation) in (typing.Union, types.UnionType)
    kinds = set(parameter.annotation.__args__) if is_union else {parameter.annotation}
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if number and str in kinds and kinds <= {str, os.PathLike, type(None)}:
        return str(value)  # a folder called 2024
    if kinds & {int, float} and kinds <= _KINDS.keys() and not _is_one_of(kinds, value):
        names = " or ".join(sorted(_KINDS[kind] for kind in kinds))
        raise ConfigError(path, f"{_name(target)} expects {names}, got {value!r}")
    return value


def _is_one_of(kinds: set, value: Any) -> bool:
    """Whether a value is a number, or None, as annotations say."""
    if value is None:
        return type(None) in kinds
    if bool in kinds and _is_flag(value):
        return True
    if float in kinds:
        return isinstance(value, numbers.Real)
    whole = isinstance(value, numbers.Integral) or (isinstance(value, float) and value.is_integer())
    return int in kinds and whole


def _is_flag(value: Any) -> bool:
    """True, False, None, 0, 1, and NumPy's."""
    return value is None or (not isinstance(value, (str, list, tuple, Mapping)) and value in (0, 1))


def _name(target: Callable) -> str:
    return getattr(target, "__name__", type(target).__name__)


def _no_such_argument(target: Callable, key: str, path: str) -> ConfigError:
    hint = did_you_mean(key, _argument_names(target))
    return ConfigError(join_keys(path, key), f"{_name(target)} has no such argument{hint}")


def construct(target: Callable, args: dict, path: str) -> Any:
    """Call the constructor; what it refuses, or stumbles over, becomes a ConfigError at this path.

    The exception behind it is the error's cause, which SEGFAST_DEBUG=1 shows.
    """
    try:
        return target(**args)
    except ConfigError as error:
        if not path:
            raise
        raise error.under(path) from error
    except UserError:
        raise
    except (ValueError, AssertionError) as error:
        reason = " ".join(str(error).split()) or f"{type(error).__name__} in its constructor"
        raise ConfigError(path, f"{_name(target)}: {reason}") from error
    except (TypeError, AttributeError, LookupError, RuntimeError) as error:
        text = " ".join(str(error).split())
        match = _UNEXPECTED_KEYWORD.search(text)
        if match is not None and match.group(1) in args:
            raise _no_such_argument(target, match.group(1), path) from error
        if isinstance(error, RuntimeError) and _is_the_machines(error):
            raise
        what = f"{type(error).__name__}: {text}" if text else type(error).__name__
        hint = "(hint: is an argument of the wrong kind? SEGFAST_DEBUG=1 shows where it happens)"
        raise ConfigError(path, f"{_name(target)}: {what} {hint}") from error


def _is_the_machines(error: RuntimeError) -> bool:
    """No memory, a lost device: nothing that a config says is wrong."""
    kinds = ("OutOfMemoryError", "AcceleratorError", "DistError", "DistBackendError")
    text = str(error)
    return type(error).__name__ in kinds or "CUDA error" in text or "allocate memory" in text
