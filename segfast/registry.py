"""Turn a config's `type` strings into objects: the one place where names become classes."""

# SPDX-License-Identifier: Apache-2.0
import contextlib
import contextvars
import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from segfast.errors import ConfigError, UserError

_PLAIN_VALUES = (str, bytes, int, float, list, tuple, type(None))  # never an object already built
_UNEXPECTED_KEYWORD = re.compile(r"got an unexpected keyword argument '(\w+)'")
_guard: contextvars.ContextVar[Callable[[str], None] | None] = contextvars.ContextVar(
    "guard", default=None
)


@contextlib.contextmanager
def guarded(check: Callable[[str], None]) -> Iterator[None]:
    """Within it every dotted path is shown to `check`, which may raise, before anything is imported.

    Whatever key the path stands under, and whichever constructor asks for it.
    """
    before = _guard.set(check)
    try:
        yield
    finally:
        _guard.reset(before)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The hint ` (did you mean x?)` for the nearest known names, or an empty string."""
    names = sorted(set(known))
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, n=2, cutoff=cutoff)
    if not near:
        return ""
    return f" (did you mean {' or '.join(by_lower[name] for name in near)}?)"


class Registry:
    """Names of one kind of object, and the builder that reads them out of a config.

    Args:
        name: what one entry is called in messages, for example `model`.
    """

    def __init__(self, name: str) -> None:
        """Start empty; classes enter through `register_module`."""
        self.name = name
        self._entries: dict[str, Callable] = {}

    def __repr__(self) -> str:
        """Name the registry and its entries."""
        return f"Registry({self.name}: {', '.join(sorted(self._entries))})"

    def __contains__(self, name: str) -> bool:
        """Whether `name` is registered (dotted paths do not count)."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """The registered names."""
        return iter(self._entries)

    def register_module(
        self,
        name: str | list[str] | None = None,
        force: bool = False,
        module: Callable | None = None,
    ) -> Callable:
        """Register a class or function, as a decorator or as a call with `module`.

        Args:
            name: one or several names; the object's own name when None.
            force: replace an entry of that name instead of raising.
            module: the object to register; a decorator is returned when None.

        Returns:
            The object, or the decorator.

        Raises:
            KeyError: the name is taken by something else and `force` is False.
        """
        if module is None:
            return lambda obj: self.register_module(name, force, obj)
        names = [name] if isinstance(name, str) else name or [module.__name__]
        for entry in names:
            if self._entries.get(entry, module) is not module and not force:
                raise KeyError(f"{entry} is already registered as a {self.name}")
            self._entries[entry] = module
        return module

    def get(self, type_name: str) -> Callable:
        """The class or function of that name, registered or a dotted import path.

        Raises:
            ConfigError: nothing of that name; the text lists the nearest names.
        """
        if type_name in self._entries:
            return self._entries[type_name]
        if "." in type_name:
            check = _guard.get()
            if check is not None:
                check(type_name)
            return import_dotted(type_name)
        hint = did_you_mean(type_name, self._entries)
        if not hint:
            known = ", ".join(sorted(self._entries)[:12]) or "none"
            hint = f" (known: {known}; anything importable works as a dotted path)"
        raise ConfigError("", f"unknown {self.name} {type_name!r}{hint}")

    def build(self, cfg: Any, path: str = "", **defaults: Any) -> Any:
        """Build the object that `cfg` describes.

        Args:
            cfg: a dict with `type` (registered name, dotted path, class or function) and the
                arguments; an object that is already built is returned as it is.
            path: dotted path of `cfg` in the config, for messages.
            defaults: arguments (`type` too) that `cfg` may leave out.

        Raises:
            ConfigError: unknown type or argument, missing argument, or a value that the
                constructor refuses; the text starts with the key's full path.
        """
        if not isinstance(cfg, Mapping):
            if isinstance(cfg, _PLAIN_VALUES):
                problem = f"expected a dict(type=...) for a {self.name}, got {cfg!r}"
                raise ConfigError(path, problem)
            return cfg
        args = {**defaults, **cfg}
        if args.get("type") is None:
            raise ConfigError(_join(path, "type"), f"missing, it names the {self.name} to build")
        target = args.pop("type")
        if isinstance(target, str):
            try:
                target = self.get(target)
            except ConfigError as error:
                raise error.under(_join(path, "type")) from None
        if not callable(target):
            problem = f"expected a name or a class, got {target!r}"
            raise ConfigError(_join(path, "type"), problem)
        _check_arguments(target, args, path)
        return _construct(target, args, path)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _refuse_standard_library(type_name: str, found: Any) -> None:
    """`os.system`, by whatever path, is nothing that a config should call."""
    homes = {type_name}
    if inspect.isclass(found) or inspect.isroutine(found):
        homes.add(str(getattr(found, "__module__", None) or type(found).__module__))
    if any(home.partition(".")[0] in sys.stdlib_module_names for home in homes):
        problem = f"{type_name} is of Python's standard library, which a config cannot call"
        raise ConfigError("", f"{problem} (hint: wrap it in a function of your own)")


def import_dotted(type_name: str) -> Callable:
    """Import the longest module prefix of a dotted path, then walk the attributes.

    Raises:
        ConfigError: there is nothing of that name, or nothing that a config may call.
    """
    parts = type_name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise ConfigError("", f"{type_name!r} is neither a name nor a dotted path")
    for part in parts:
        if part.startswith("__") and part.endswith("__"):
            raise ConfigError("", f"{type_name}: {part} is no part of a path to a class")
    for depth in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:depth])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (
                module_name == error.name or module_name.startswith(error.name + ".")
            ):
                continue
            raise
        for place, attribute in enumerate(parts[depth:], start=depth):
            if not hasattr(found, attribute):
                owner = ".".join(parts[:place])
                hint = did_you_mean(attribute, dir(found))
                raise ConfigError("", f"{owner} has no {attribute!r}{hint}")
            found = getattr(found, attribute)
        _refuse_standard_library(type_name, found)
        return found
    raise ConfigError("", f"cannot import {type_name!r}: no module named {parts[0]!r} is installed")


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


def _check_arguments(target: Callable, args: dict, path: str) -> None:
    """Refuse misspelt and missing arguments before anything is constructed."""
    known = _known_arguments(target)
    if known is None:
        return
    named, takes_any = known
    for key in args:
        if key not in named and not takes_any:
            raise _no_such_argument(target, key, path)
    for name, parameter in named.items():
        if parameter.default is inspect.Parameter.empty and name not in args:
            raise ConfigError(_join(path, name), f"missing, {target.__name__} needs this argument")


def _no_such_argument(target: Callable, key: str, path: str) -> ConfigError:
    hint = did_you_mean(key, _argument_names(target))
    return ConfigError(_join(path, key), f"{target.__name__} has no such argument{hint}")


def _construct(target: Callable, args: dict, path: str) -> Any:
    """Call the constructor; what it refuses becomes a ConfigError at this path."""
    try:
        return target(**args)
    except ConfigError as error:
        if not path:
            raise
        raise error.under(path) from error
    except UserError:
        raise
    except TypeError as error:
        match = _UNEXPECTED_KEYWORD.search(str(error))
        if match is None or match.group(1) not in args:
            raise
        raise _no_such_argument(target, match.group(1), path) from error
    except (ValueError, AssertionError) as error:
        reason = " ".join(str(error).split()) or f"{type(error).__name__} in its constructor"
        raise ConfigError(path, f"{target.__name__}: {reason}") from error


MODELS = Registry("model")
DATASETS = Registry("dataset")
TRANSFORMS = Registry("transform")
METRICS = Registry("metric")
EVALUATORS = Registry("evaluator")
SAMPLERS = Registry("sampler")
FUNCTIONS = Registry("function")
HOOKS = Registry("hook")
LOOPS = Registry("loop")
OPTIMIZERS = Registry("optimizer")
OPTIM_WRAPPERS = Registry("optimizer wrapper")
OPTIM_WRAPPER_CONSTRUCTORS = Registry("constructor of optimizer wrappers")
PARAM_SCHEDULERS = Registry("parameter scheduler")
VISUALIZERS = Registry("visualizer")
VISBACKENDS = Registry("visualization backend")
