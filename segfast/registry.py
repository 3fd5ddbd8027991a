"""Turn a config's `type` strings into objects: the one place where names become classes."""

# SPDX-License-Identifier: Apache-2.0
import contextlib
import contextvars
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from segfast.construction import checked_arguments, construct, did_you_mean, join_keys
from segfast.errors import ConfigError

_PLAIN_VALUES = (str, bytes, int, float, list, tuple, type(None))  # never an object already built
# Packages whose names configs put in front of those that are registered here, too.
_SCOPES = ("mmseg", "mmengine", "mmcv", "mmagic", "segfast")
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


class Registry:
    """Names of one kind of object, and the builder that reads them out of a config.

    What MMEngine's has under the same names works the same way; `get` raises where that returns None.

    Args:
        name: what one entry is called in messages, for example `model`.
        build_func: called as `build_func(cfg, registry=self, **defaults)` in place of `build`.
        parent: where names are looked up that are not here.
        scope: the prefix of `scope.Name`, by which a parent finds what is registered here.
        locations: modules that are imported before a name is looked up for the first time.
    """

    def __init__(
        self,
        name: str,
        build_func: Callable | None = None,
        parent: "Registry | None" = None,
        scope: str | None = None,
        locations: Iterable[str] = (),
    ) -> None:
        """Start empty; classes enter through `register_module`."""
        self.name = name
        self.build_func = build_func
        self.parent = parent
        self.scope = scope or ""
        self.children: dict[str, Registry] = {}
        self._locations = list(locations)
        self._entries: dict[str, Callable] = {}
        if parent is not None:
            if self.scope in parent.children:
                raise KeyError(f"{parent.name} has a child of the scope {self.scope!r} already")
            parent.children[self.scope] = self

    def __repr__(self) -> str:
        """Name the registry and its entries."""
        return f"Registry({self.name}: {', '.join(sorted(self._entries))})"

    def __contains__(self, name: str) -> bool:
        """Whether `name` is registered (dotted paths do not count)."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """The registered names."""
        return iter(self._entries)

    def __len__(self) -> int:
        """How many names are registered."""
        return len(self._entries)

    def __bool__(self) -> bool:
        """An empty one is a registry, too."""
        return True

    @property
    def module_dict(self) -> dict[str, Callable]:
        """Name -> class or function."""
        return self._entries

    def register_module(
        self,
        name: str | list[str] | tuple[str, ...] | None = None,
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
            KeyError: the name is taken and `force` is False.
            TypeError: `name` is no name: the decorator stands without parentheses.
        """
        several = name if isinstance(name, (list, tuple)) else [name]
        if name is not None and not all(isinstance(one, str) for one in several):
            hint = "(hint: @register_module() has parentheses)" if callable(name) else ""
            raise TypeError(f"expected a name or several, got {name!r} {hint}".rstrip())
        if not isinstance(force, bool):
            raise TypeError(f"expected force as a bool, got {force!r}")
        if module is None:
            return lambda obj: self.register_module(name, force, obj)
        if not callable(module):
            raise TypeError(f"expected a class or a function to register, got {module!r}")
        names = [name] if isinstance(name, str) else name or [module.__name__]
        for entry in names:
            if entry in self._entries and not force:
                home = getattr(self._entries[entry], "__module__", "?")
                raise KeyError(f"{entry} is already registered as a {self.name}, of {home}")
            self._entries[entry] = module
        return module

    def get(self, type_name: str) -> Callable:
        """The class or function of that name: registered here or in a parent, or a dotted import path.

        `mmseg.X` and the like are our own X where that package is not installed, or has no X itself.

        Raises:
            ConfigError: nothing of that name; the text lists the nearest names.
        """
        self._import_locations()
        found = self._registered(type_name)
        if found is not None:
            return found
        scope, _, name = type_name.partition(".")
        if "." in type_name:
            own = self._registered(name) if scope in _SCOPES else None
            check = _guard.get()
            if own is not None and (check is not None or not _has_attribute(scope, name)):
                return own
            if check is not None:
                check(type_name)
            return import_dotted(type_name)
        names = [n for registry in self._lineage() for n in registry]
        hint = did_you_mean(type_name, names)
        if not hint:
            known = ", ".join(sorted(names)[:12]) or "none"
            hint = f" (known: {known}; anything importable works as a dotted path)"
        raise ConfigError("", f"unknown {self.name} {type_name!r}{hint}")

    def build(
        self,
        cfg: Any,
        path: str = "",
        default_args: Any = None,
        **defaults: Any,
    ) -> Any:
        """Build the object that `cfg` describes.

        Args:
            cfg: a dict with `type` (registered name, dotted path, class or function) and the
                arguments; an object that is already built is returned as it is. `_scope_` is dropped.
            path: dotted path of `cfg` in the config, for messages.
            default_args: arguments (`type` too) that `cfg` may leave out.
            defaults: the same.

        Raises:
            ConfigError: unknown type or argument, missing argument, or a value that the
                constructor refuses; the text starts with the key's full path.
        """
        defaults = {**(default_args or {}), **defaults}
        if self.build_func is not None:
            return self.build_func(cfg, registry=self, **defaults)
        if not isinstance(cfg, Mapping):
            if isinstance(cfg, _PLAIN_VALUES):
                problem = f"expected a dict(type=...) for a {self.name}, got {cfg!r}"
                raise ConfigError(path, problem)
            return cfg
        args = {**defaults, **cfg}
        args.pop("_scope_", None)
        if args.get("type") is None:
            raise ConfigError(
                join_keys(path, "type"), f"missing, it names the {self.name} to build"
            )
        target = args.pop("type")
        if isinstance(target, str):
            try:
                target = self.get(target)
            except ConfigError as error:
                raise error.under(join_keys(path, "type")) from error.__cause__
        if not callable(target):
            problem = f"expected a name or a class, got {target!r}"
            raise ConfigError(join_keys(path, "type"), problem)
        return construct(target, checked_arguments(target, args, path), path)

    def _lineage(self) -> Iterator["Registry"]:
        """This registry, its parent, and so on."""
        registry: Registry | None = self
        while registry is not None:
            yield registry
            registry = registry.parent

    def _registered(self, name: str) -> Callable | None:
        """What is registered under `name`, or under `scope.name` in a registry of that scope."""
        scope, _, inner = name.partition(".")
        for registry in self._lineage():
            if name in registry._entries:
                return registry._entries[name]
            for relative in (registry, *registry.children.values()):
                if inner and relative.scope == scope and inner in relative._entries:
                    return relative._entries[inner]
        return None

    def _import_locations(self) -> None:
        while self._locations:
            importlib.import_module(self._locations.pop(0))


class _ModelRegistry(Registry):
    """A list of models is a sequence of them."""

    def build(
        self,
        cfg: Any,
        path: str = "",
        default_args: Any = None,
        **defaults: Any,
    ) -> Any:
        """As `Registry.build`; a list of configs becomes a `torch.nn.Sequential`."""
        if not isinstance(cfg, list) or not cfg or not all(isinstance(c, Mapping) for c in cfg):
            return super().build(cfg, path, default_args, **defaults)
        from torch.nn import Sequential

        parts = enumerate(cfg)
        return Sequential(
            *[
                super(_ModelRegistry, self).build(
                    c, join_keys(path, str(i)), default_args, **defaults
                )
                for i, c in parts
            ]
        )


def _has_attribute(package: str, name: str) -> bool:
    """Whether a package is installed and has that attribute, or module, itself."""
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        return False
    try:
        import_dotted(f"{package}.{name}")
    except Exception:  # it may need what is not there
        return False
    return True


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
        except ImportError as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing and f"{module_name}.".startswith(f"{missing}."):
                continue
            problem = f"cannot import {module_name}: {type(error).__name__}: {error}"
            raise ConfigError("", problem) from error
        for place, attribute in enumerate(parts[depth:], start=depth):
            if not hasattr(found, attribute):
                owner = ".".join(parts[:place])
                hint = did_you_mean(attribute, dir(found))
                raise ConfigError("", f"{owner} has no {attribute!r}{hint}")
            found = getattr(found, attribute)
        _refuse_standard_library(type_name, found)
        return found
    raise ConfigError("", f"cannot import {type_name!r}: no module named {parts[0]!r} is installed")


MODELS = _ModelRegistry("model")
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
