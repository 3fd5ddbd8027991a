"""BaseDataElement: a record of data fields and metainfo fields with disjoint names."""

# SPDX-License-Identifier: Apache-2.0
import copy
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch

_NAME_SETS = ("_metainfo_fields", "_data_fields")


class BaseDataElement:
    """Data (tensors, arrays, nested elements) and the metainfo that describes it.

    Fields are attributes. `x.name = value` makes a data field; metainfo enters through
    `set_metainfo`. A name belongs to one kind only. A field that a subclass declares as a property
    `name` is stored as `_name`; listings show the public name.

    Every converter (`to`, `cpu`, `numpy`, ...) returns a new element with its own copy of the
    metainfo and leaves the original alone, also when there is nothing to convert: those who
    receive a converted sample may change it.

    Args:
        metainfo: metainfo by name; values are deep-copied.
        **data: data fields by name; values are shared.
    """

    def __init__(self, *, metainfo: dict | None = None, **data: Any) -> None:
        """Set the metainfo first, then the data."""
        self._metainfo_fields: set[str] = set()
        self._data_fields: set[str] = set()
        if metainfo is not None:
            self.set_metainfo(metainfo)
        if data:
            self.set_data(data)

    # ---- writing -------------------------------------------------------------------------------

    def set_metainfo(self, metainfo: dict) -> None:
        """Set metainfo fields; values are deep-copied.

        Raises:
            AssertionError: `metainfo` is not a dict.
            AttributeError: a name is already a data field.
        """
        assert isinstance(metainfo, dict), f"metainfo should be a dict, got {type(metainfo)}"
        for name, value in copy.deepcopy(metainfo).items():
            self.set_field(value, name, field_type="metainfo")

    def set_data(self, data: dict) -> None:
        """Set data fields as attribute assignment would, property setters included.

        Raises:
            AssertionError: `data` is not a dict.
            AttributeError: a name is already a metainfo field.
        """
        assert isinstance(data, dict), f"data should be a dict, got {type(data)}"
        for name, value in data.items():
            setattr(self, name, value)

    def set_field(
        self,
        value: Any,
        name: str,
        dtype: type | tuple[type, ...] | None = None,
        field_type: Literal["metainfo", "data"] = "data",
    ) -> None:
        """Set one field.

        Args:
            value: the value, stored as it is.
            name: the field's name.
            dtype: class that `value` has to be an instance of, if any.
            field_type: which kind of field.

        Raises:
            AssertionError: `value` is no `dtype`, or `field_type` is unknown.
            AttributeError: `name` already belongs to the other kind, or is private.
        """
        assert field_type in ("metainfo", "data"), f"unknown field_type {field_type!r}"
        if name in _NAME_SETS:
            raise AttributeError(f"{name} is private and cannot be changed")
        if dtype is not None:
            assert isinstance(value, dtype), f"{name} should be {dtype}, got {type(value)}"
        is_data = field_type == "data"
        own, other = self._data_fields, self._metainfo_fields
        if not is_data:
            own, other = other, own
        if name in other:
            taken = "metainfo" if is_data else "data"
            raise AttributeError(
                f"cannot set {name} as {field_type}: it is a {taken} field already"
            )
        super().__setattr__(name, value)
        own.add(name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Make a data field; the two sets of names can be written once only."""
        if name not in _NAME_SETS:
            self.set_field(value, name)
        elif hasattr(self, name):
            raise AttributeError(f"{name} is private and cannot be changed")
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        """Delete a field of either kind."""
        if name in _NAME_SETS:
            raise AttributeError(f"{name} is private and cannot be deleted")
        super().__delattr__(name)
        self._metainfo_fields.discard(name)
        self._data_fields.discard(name)

    __setitem__ = __setattr__
    __delitem__ = __delattr__

    def update(self, instance: "BaseDataElement") -> None:
        """Take over every field of another element; its values win.

        Raises:
            AssertionError: `instance` is no BaseDataElement.
        """
        assert isinstance(instance, BaseDataElement), f"expected an element, got {type(instance)}"
        self.set_metainfo(dict(instance.metainfo_items()))
        self.set_data(dict(instance.items()))

    # ---- reading -------------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        """The field of that name, or `default`."""
        return getattr(self, key, default)

    def pop(self, name: str, *default: Any) -> Any:
        """Remove a field and return its value.

        Args:
            name: the field's name.
            *default: at most one value, returned when there is no such field.

        Raises:
            KeyError: no such field and no default.
        """
        assert len(default) < 2, "pop takes a name and at most one default"
        if name in self:
            value = getattr(self, name)
            delattr(self, name)
            return value
        if default:
            return default[0]
        raise KeyError(f"there is no field {name}")

    def __contains__(self, name: str) -> bool:
        """Whether there is a field of that name, of either kind."""
        return name in self._data_fields or name in self._metainfo_fields

    def keys(self) -> list[str]:
        """Names of the data fields, sorted; the storage `_name` of a property `name` is hidden."""
        hidden = {f"_{name}" for name in self._data_fields if self._is_property(name)}
        return sorted(self._data_fields - hidden)

    def _is_property(self, name: str) -> bool:
        return isinstance(getattr(type(self), name, None), property)

    def values(self) -> list[Any]:
        """Values of the data fields, in the order of `keys()`."""
        return [getattr(self, name) for name in self.keys()]

    def items(self) -> Iterator[tuple[str, Any]]:
        """Names and values of the data fields."""
        for name in self.keys():
            yield name, getattr(self, name)

    def metainfo_keys(self) -> list[str]:
        """Names of the metainfo fields, sorted."""
        return sorted(self._metainfo_fields)

    def metainfo_values(self) -> list[Any]:
        """Values of the metainfo fields, in the order of `metainfo_keys()`."""
        return [getattr(self, name) for name in self.metainfo_keys()]

    def metainfo_items(self) -> Iterator[tuple[str, Any]]:
        """Names and values of the metainfo fields."""
        for name in self.metainfo_keys():
            yield name, getattr(self, name)

    def all_keys(self) -> list[str]:
        """Names of all fields, metainfo first."""
        return self.metainfo_keys() + self.keys()

    def all_values(self) -> list[Any]:
        """Values of all fields, metainfo first."""
        return self.metainfo_values() + self.values()

    def all_items(self) -> Iterator[tuple[str, Any]]:
        """Names and values of all fields, metainfo first."""
        yield from self.metainfo_items()
        yield from self.items()

    @property
    def metainfo(self) -> dict[str, Any]:
        """The metainfo as a new dict; its values are the sample's own."""
        return dict(self.metainfo_items())

    # ---- copying and converting ----------------------------------------------------------------

    def new(self, *, metainfo: dict | None = None, **data: Any) -> "BaseDataElement":
        """A new element of this class; what is not given is taken from this one.

        Args:
            metainfo: replaces this element's metainfo; deep-copied either way.
            **data: replaces this element's data as a whole; values are shared.
        """
        element = type(self)()
        element.set_metainfo(self.metainfo if metainfo is None else metainfo)
        element.set_data(data or dict(self.items()))
        return element

    def clone(self) -> "BaseDataElement":
        """A new element: metainfo deep-copied, data values shared."""
        return self.new()

    def _map(self, convert: Callable[[Any], Any]) -> "BaseDataElement":
        return self.new(**{name: convert(value) for name, value in self.items()})

    def _map_tensors(self, method: str, *args: Any) -> "BaseDataElement":
        kinds = (torch.Tensor, BaseDataElement)
        return self._map(lambda v: getattr(v, method)(*args) if isinstance(v, kinds) else v)

    def to(self, *args: Any, **kwargs: Any) -> "BaseDataElement":
        """A new element whose values have been through their own `.to`, where they have one."""
        return self._map(lambda v: v.to(*args, **kwargs) if hasattr(v, "to") else v)

    def cpu(self) -> "BaseDataElement":
        """A new element with all tensors on the CPU."""
        return self._map_tensors("cpu")

    def cuda(self, *args: Any) -> "BaseDataElement":
        """A new element with all tensors on a CUDA device."""
        return self._map_tensors("cuda", *args)

    def pin_memory(self) -> "BaseDataElement":
        """A new element with all tensors in pinned memory; the DataLoader calls this."""
        return self._map_tensors("pin_memory")

    def detach(self) -> "BaseDataElement":
        """A new element with all tensors detached."""
        return self._map_tensors("detach")

    def numpy(self) -> "BaseDataElement":
        """A new element with all tensors as arrays."""
        return self._map(_as_array)

    def to_tensor(self) -> "BaseDataElement":
        """A new element with all arrays as tensors."""
        return self._map(_as_tensor)

    def to_dict(self) -> dict[str, Any]:
        """Metainfo and data in one plain dict, nested elements too."""
        nested = BaseDataElement
        return {k: v.to_dict() if isinstance(v, nested) else v for k, v in self.all_items()}

    def __repr__(self) -> str:
        """Two blocks, META INFORMATION and DATA FIELDS; nested elements and dicts are indented."""
        meta, data = _describe(dict(self.metainfo_items())), _describe(dict(self.items()))
        body = f"\n\n    META INFORMATION{_indent(meta)}\n\n    DATA FIELDS{_indent(data)}"
        return f"<{type(self).__name__}({body}\n) at {hex(id(self))}>"


def _describe(value: Any) -> str:
    """A dict as one line a key, anything else as it represents itself."""
    if not isinstance(value, dict):
        return repr(value)
    return "".join(f"\n{name}: {_indent(_describe(part))}" for name, part in value.items())


def _indent(text: str) -> str:
    """Indent every line but the first."""
    return text.replace("\n", "\n    ")


def _as_array(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    return value.numpy() if isinstance(value, BaseDataElement) else value


def _as_tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return value.to_tensor() if isinstance(value, BaseDataElement) else value
