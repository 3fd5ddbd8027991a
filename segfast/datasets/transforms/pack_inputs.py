"""PackInputs: editing's last step, from arrays to tensors and a DataSample."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

from segfast.datasets.transforms.base import BaseTransform
from segfast.registry import TRANSFORMS
from segfast.structures import DataSample
from segfast.structures.data_sample import images_to_tensor


@TRANSFORMS.register_module()
class PackInputs(BaseTransform):
    """Pack a sample as dict(inputs=tensor or dict of tensors, data_samples=DataSample).

    Images (H, W, C) become (C, H, W) views of the same memory, lists of frames (T, C, H, W). Results whose names
    `DataSample` knows become its fields without being named here.

    Args:
        keys: results that are inputs, where present; a single one is not put in a dict.
        meta_keys: further results that become metainfo.
        data_keys: further results that become data fields.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = ("merged", "img"),
        meta_keys: str | Sequence[str] = (),
        data_keys: str | Sequence[str] = (),
    ) -> None:
        """Take the names; one may stand alone."""
        self.keys = _names("keys", keys)
        self.meta_keys = _names("meta_keys", meta_keys)
        self.data_keys = _names("data_keys", data_keys)

    def transform(self, results: dict) -> dict:
        """Pack what is there; without any of `keys`, `inputs` is an empty dict."""
        found = {key: results[key] for key in self.keys if results.get(key) is not None}
        inputs: Any = {key: images_to_tensor(value) for key, value in found.items()}
        if len(inputs) == 1:
            (inputs,) = inputs.values()
        named = {*self.data_keys, *self.meta_keys}
        sample = DataSample()
        sample.set_predefined_data({k: v for k, v in results.items() if k not in named})
        sample.set_metainfo({key: results[key] for key in self.meta_keys if key in results})
        sample.set_tensor_data({key: results[key] for key in self.data_keys if key in results})
        return {"inputs": inputs, "data_samples": sample}

    def __repr__(self) -> str:
        """The class's name."""
        return type(self).__name__


def _names(argument: str, given: str | Sequence[str]) -> list[str]:
    assert given is not None, f"{argument} in PackInputs can not be None (hint: an empty list)"
    return [given] if isinstance(given, str) else list(given)
