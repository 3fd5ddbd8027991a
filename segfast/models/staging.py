"""StagingRing: the CPU tensors of a batch cross to the device in one copy, beside the computation.

Tensors are packed into a pinned buffer, copied by one transfer on a stream of its own, and taken as views of the
device's copy by whoever holds the originals. Nothing but the identity of a tensor joins the two: the batch itself is
neither changed nor wrapped, so hooks and models see it as the dataloader made it.
"""

# SPDX-License-Identifier: Apache-2.0
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segfast.ops.pack_tensors import pack_tensors, packed_layout, unpack_tensors
from segfast.structures import BaseDataElement

_MIN_BYTES = 1 << 20


class _Passenger(NamedTuple):
    source: Tensor
    version: int
    view: Tensor


class Flight:
    """Tensors on their way to the device; they can be taken as long as this object lives.

    The views share one allocation: keeping a view keeps the batch's memory, clone what is kept for long.
    """

    def __init__(
        self, sources: Sequence[Tensor], views: Sequence[Tensor], event: torch.cuda.Event | None
    ) -> None:
        """Note what flies; `event` is behind the copy, None where the copy was not asynchronous."""
        self._passengers = {
            id(source): _Passenger(source, _version(source), view)
            for source, view in zip(sources, views, strict=True)
        }
        self._event = event
        self._streams: set[torch.cuda.Stream] = set()

    def __contains__(self, tensor: Tensor) -> bool:
        """Whether this very tensor flies and was not taken."""
        return id(tensor) in self._passengers  # the sources are held here, so no id is used twice

    def take(self, tensor: Tensor) -> Tensor | None:
        """The copy of a tensor, once; the current stream waits for it, the host does not.

        None if the tensor does not fly, was taken before, or was written to since it was packed.
        """
        passenger = self._passengers.pop(id(tensor), None)
        if passenger is None or passenger.version != _version(tensor):
            return None
        if self._event is not None:
            stream = torch.cuda.current_stream(passenger.view.device)
            if stream not in self._streams:
                self._streams.add(stream)
                stream.wait_event(self._event)
                passenger.view.record_stream(stream)  # covers the whole allocation
        return passenger.view


class _Slot:
    """A host buffer, and the event behind the last copy out of it."""

    def __init__(self) -> None:
        self.buffer = torch.empty(0, dtype=torch.uint8, device="cpu")
        self.event: torch.cuda.Event | None = None


class StagingRing:
    """Sends lists of CPU tensors to one device; one batch is packed while another one flies.

    Host buffers are pinned, belong to the ring, and are packed again once their last copy is done: that is the only
    place where the host may wait, and only if it packs faster than the bus carries. Device buffers are ordinary
    allocations of torch's, made on the ring's stream and recorded on the stream that takes from them.

    Args:
        device: a CUDA device. (On the CPU the same steps run without streams and pinned memory, which tests use.)
        num_slots: host buffers.
    """

    def __init__(self, device: torch.device, num_slots: int = 2) -> None:
        """Allocate nothing yet; "cuda" without an index is the device that is current now."""
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.device = device
        self._slots = [_Slot() for _ in range(num_slots)]
        self._turn = 0
        self._stream: torch.cuda.Stream | None = None
        self._lock = threading.Lock()
        self._flights: weakref.WeakValueDictionary[int, Flight] = weakref.WeakValueDictionary()

    def __reduce__(self) -> tuple:
        """A copy, or a pickle, of a ring is a new one: streams and buffers belong to a process."""
        return StagingRing, (self.device, len(self._slots))

    def send(self, tensors: Iterable[Tensor]) -> Flight | None:
        """Pack tensors and start their transfer; safe to call from several threads.

        Args:
            tensors: strided CPU tensors; those that fly already are left out, and so are repetitions.

        Returns:
            The flight, to be kept alive until its tensors were taken; None if there is nothing to send, or if the
            current stream is being captured: a graph may not wait for what lies outside of it.
        """
        if self._is_capturing():
            return None
        sources = list({id(t): t for t in tensors if not self._carries(t)}.values())
        if not sources:
            return None
        layout = packed_layout(sources)
        with self._lock:
            slot = self._free_slot(layout.num_bytes)
            pack_tensors(sources, slot.buffer)
            copy, slot.event = self._transfer(slot.buffer, layout.num_bytes)
        flight = Flight(sources, unpack_tensors(copy, sources, layout), slot.event)
        for source in sources:
            self._flights[id(source)] = flight
        return flight

    def take(self, tensor: Tensor) -> Tensor | None:
        """`Flight.take` from whichever flight carries the tensor."""
        flight = self._flights.get(id(tensor))
        return None if flight is None else flight.take(tensor)

    def _is_capturing(self) -> bool:
        if self.device.type != "cuda":
            return False
        with torch.cuda.device(self.device):
            return torch.cuda.is_current_stream_capturing()

    def _carries(self, tensor: Tensor) -> bool:
        flight = self._flights.get(id(tensor))
        return flight is not None and tensor in flight

    def _free_slot(self, num_bytes: int) -> _Slot:
        """The slot whose turn it is, large enough, its last copy done."""
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % len(self._slots)
        if slot.event is not None:
            slot.event.synchronize()
        if slot.buffer.numel() < num_bytes:
            slot.buffer = slot.buffer.new_empty(0)  # not both at a time
            slot.buffer = torch.empty(
                _capacity(num_bytes),
                dtype=torch.uint8,
                device="cpu",
                pin_memory=self.device.type == "cuda",
            )
        return slot

    def _transfer(self, staged: Tensor, num_bytes: int) -> tuple[Tensor, torch.cuda.Event | None]:
        """Start the one copy; the event behind it."""
        if self.device.type != "cuda":
            return staged[:num_bytes].clone(), None
        with torch.cuda.device(self.device):
            self._stream = self._stream or torch.cuda.Stream()
            with torch.cuda.stream(self._stream):
                copy = torch.empty(_capacity(num_bytes), dtype=torch.uint8, device=self.device)
                copy[:num_bytes].copy_(staged[:num_bytes], non_blocking=True)
                event = torch.cuda.Event(blocking=True)  # a host that waits sleeps
                event.record()
        return copy, event


def packable_tensors(data: Any, *, skip_pinned: bool = False) -> list[Tensor]:
    """The tensors in a batch that a ring can send: those that `cast_data` moves, plain and on the CPU.

    Args:
        data: mappings, sequences, samples, tensors, anything else.
        skip_pinned: leave out tensors in pinned memory, which need no staging to fly.
    """
    found: list[Tensor] = []
    _collect(data, found)
    return [tensor for tensor in found if not tensor.is_pinned()] if skip_pinned else found


def moves_by_field(element: BaseDataElement) -> bool:
    """Whether an element is moved field by field, or has a way of its own."""
    return type(element).to is BaseDataElement.to


def _collect(data: Any, found: list[Tensor]) -> None:
    if isinstance(data, Tensor):
        if _is_packable(data):
            found.append(data)
    elif isinstance(data, BaseDataElement):
        if moves_by_field(data):
            for value in vars(
                data
            ).values():  # each field once, and metainfo, where tensors are rare
                if isinstance(value, (Tensor, BaseDataElement)):
                    _collect(value, found)
    elif isinstance(data, Mapping):
        for value in data.values():
            _collect(value, found)
    elif isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        for value in data:
            _collect(value, found)


def _is_packable(tensor: Tensor) -> bool:
    """Plain bytes: no subclass, no graph, no lazy conjugate."""
    return (
        type(tensor) is Tensor
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not (tensor.requires_grad or tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


def _version(tensor: Tensor) -> int:
    """How often a tensor was written to; tensors made in inference mode do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _capacity(num_bytes: int) -> int:
    """Bytes to allocate: eight sizes to a doubling, so that batches of varying size share few buffers."""
    step = max(1 << (max(num_bytes, 1).bit_length() - 4), 1 << 17)
    return max(-(-num_bytes // step) * step, _MIN_BYTES)
