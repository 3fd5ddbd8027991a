"""Bad labels on a GPU: tallied there, raised at the next check."""

# SPDX-License-Identifier: Apache-2.0

import torch

from segfast._native import CUDA_STATUS
from segfast.errors import LabelError

_HINT = (
    "(hint: is ignore_index the value your masks use for void? does the data set need reduce_zero_label? "
    "are the masks 0/255 instead of 0/1?)"
)
# How a device packs its first fault: pixel index, value and number of classes (clamped).
# See csrc/cuda/label_faults.cuh.
_VALUE_BITS, _CLASS_BITS = 16, 14


def check_labels() -> None:
    """Raise if a CUDA operator met bad labels since the last call; waits for the device.

    On CUDA a label outside [0, C) that is not the ignore index counts as ignored and is tallied on the device: no
    assertion kills the process and nobody waits. Call this where you synchronise anyway. On the CPU the operators raise
    at once and there is nothing to do here.

    Raises:
        LabelError: how many labels were bad, the first of them, and what to check.
    """
    if CUDA_STATUS != "loaded" or not torch.cuda.is_initialized():
        return
    for index in range(torch.cuda.device_count()):
        if not torch._C._cuda_hasPrimaryContext(index):  # type: ignore[attr-defined]
            continue  # nothing ran there, and asking would cost that device a context's memory
        torch.cuda.synchronize(index)  # the operators may have run on any stream
        anchor = torch.empty(0, device=torch.device("cuda", index))
        count, packed = torch.ops.segfast.take_label_faults(anchor).tolist()
        if count:
            raise LabelError(_describe(count, packed))


def _describe(count: int, packed: int) -> str:
    """The sentence for `count` faults of which `packed` is the first."""
    num_classes = packed & ((1 << _CLASS_BITS) - 1)
    value = ((packed >> _CLASS_BITS) & ((1 << _VALUE_BITS) - 1)) - (1 << (_VALUE_BITS - 1))
    index = packed >> (_VALUE_BITS + _CLASS_BITS)
    return (
        f"segfast: {count} label(s) lie outside [0, {num_classes}) and are not the ignore index; the first is {value} "
        f"at pixel {index} of its batch {_HINT}"
    )
