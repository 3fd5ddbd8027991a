"""BaseDataPreprocessor: moves a batch of any structure to the device."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segfast.models.staging import Flight, StagingRing, moves_by_field, packable_tensors
from segfast.ops.normalize_pad_stack import IMAGE_DTYPES
from segfast.registry import MODELS
from segfast.structures import BaseDataElement


@MODELS.register_module()
class BaseDataPreprocessor(nn.Module):
    """Moves a batch of any structure to the device; all tensors together in one copy where that is CUDA.

    Args:
        non_blocking: let copies to a CUDA device overlap with the host (needs pinned memory); pinned tensors then
            fly one by one, as they are.
        staging: pack the tensors that are in ordinary memory into a pinned buffer and send them in one copy, for
            which the host does not wait.
    """

    def __init__(self, non_blocking: bool = False, staging: bool = True) -> None:
        """Start on the CPU; `to`, `cuda` and `cpu`, here or on a model around it, change that."""
        super().__init__()
        self._non_blocking = non_blocking
        self.staging = staging
        self._device = self._ring_device = torch.device("cpu")
        self._ring: StagingRing | None = None

    @property
    def device(self) -> torch.device:
        """Where `cast_data` moves tensors."""
        return self._device

    @property
    def ring(self) -> StagingRing | None:
        """The ring that stages for the present device; None where nothing is staged."""
        if self._ring_device is not self._device:  # whether they are equal takes longer to say
            if self._ring_device != self._device:
                on_cuda = self._device.type == "cuda"
                self._ring = StagingRing(self._device) if on_cuda else None
            self._ring_device = self._device
        return self._ring if self.staging else None

    def stage(self, data: Any) -> Flight | None:
        """Start moving the tensors of a batch, in one copy; `cast_data` of the same batch then takes them.

        May be called ahead of time and from another thread. A tensor that is replaced or written to in between
        is moved again by `cast_data`.

        Returns:
            What has to be kept alive until then; None if nothing was left to send.
        """
        ring = self.ring
        if ring is None or torch.compiler.is_compiling():
            return None
        return ring.send(packable_tensors(data, skip_pinned=self._non_blocking))

    def cast_data(self, data: Any) -> Any:
        """Move every tensor in a nested structure to the device.

        A tensor that is there already comes back as the same object; a sample is rebuilt in any
        case, because preprocessors write into the samples they return and the caller's must stay
        as they are.

        Args:
            data: mappings (become dicts), sequences, named tuples, tensors, samples; anything
                else is passed through.
        """
        kind = type(data)
        if kind is list:  # the plain types first: asking abstract classes takes longer than moving
            return [self.cast_data(value) for value in data]
        if kind is dict:
            return {key: self.cast_data(value) for key, value in data.items()}
        if isinstance(data, Tensor):
            if self._ring is None and data.device == self._device:
                return data
            return self._move(data)
        if isinstance(data, BaseDataElement):
            return self._cast_element(data)
        if isinstance(data, Mapping):
            return {key: self.cast_data(value) for key, value in data.items()}
        if data is None or isinstance(data, (str, bytes)):
            return data
        if isinstance(data, tuple) and hasattr(data, "_fields"):
            return kind(*(self.cast_data(value) for value in data))
        if isinstance(data, Sequence):
            return kind([self.cast_data(value) for value in data])  # type: ignore[call-arg]
        return data

    def _move(self, tensor: Tensor) -> Tensor:
        ring = self.ring
        staged = None if ring is None else ring.take(tensor)
        return (
            tensor.to(self._device, non_blocking=self._non_blocking) if staged is None else staged
        )

    def _cast_element(self, element: BaseDataElement) -> BaseDataElement:
        if self.ring is None or not moves_by_field(element):
            return element.to(self.device, non_blocking=self._non_blocking)
        return element.new(**{name: self._cast_field(value) for name, value in element.items()})

    def _cast_field(self, value: Any) -> Any:
        """As `BaseDataElement.to` does it: a list in a field is left alone."""
        if isinstance(value, (Tensor, BaseDataElement)):
            return self.cast_data(value)
        if hasattr(value, "to"):
            return value.to(self.device, non_blocking=self._non_blocking)
        return value

    def _staged_cast(self, data: Any) -> Any:
        """`cast_data`, after what does not fly yet was sent."""
        flight = self.stage(data)
        data = self.cast_data(data)
        del flight  # it had to live until here
        return data

    def forward(self, data: Any, training: bool = False) -> Any:
        """Return `data` as `cast_data` moves it; subclasses do more."""
        return self._staged_cast(data)

    def to(self, *args: Any, **kwargs: Any) -> "BaseDataPreprocessor":
        """As `nn.Module.to`, and remember the device if one is named."""
        device = device_argument(*args, **kwargs)
        if device is not None:
            self._device = device
        return super().to(*args, **kwargs)

    def cuda(self, device: int | torch.device | None = None) -> "BaseDataPreprocessor":
        """As `nn.Module.cuda`, and remember the device."""
        self._device = cuda_device(device)
        return super().cuda(device)

    def cpu(self) -> "BaseDataPreprocessor":
        """As `nn.Module.cpu`, and remember the device."""
        self._device = torch.device("cpu")
        return super().cpu()


def device_argument(*args: Any, **kwargs: Any) -> torch.device | None:
    """The device among the arguments of `nn.Module.to`, or None."""
    return torch._C._nn._parse_to(*args, **kwargs)[0]


def cuda_device(device: int | torch.device | None) -> torch.device:
    """The device that `nn.Module.cuda(device)` means; without an index, the current one."""
    if isinstance(device, int):
        return torch.device("cuda", device)
    return torch.device("cuda" if device is None else device)


def register_mean_std(
    module: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[list[float] | None, list[float] | None]:
    """Hold mean and std as non-persistent buffers (C, 1, 1), for readers and for moving.

    Returns:
        The same numbers as Python floats for the kernel, which must not wait for a device.
    """
    if mean is None or std is None:
        return None, None
    module.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
    module.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
    return [float(value) for value in mean], [float(value) for value in std]


def of_one_dtype(images: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """Images as a list, of one dtype that the operator reads: float32 where they differ."""
    if len({image.dtype for image in images}) > 1 or images[0].dtype not in IMAGE_DTYPES:
        return [image.float() for image in images]
    return list(images)
