"""What the CUDA entries refuse: tensors on another device, and at addresses that are not aligned for their elements."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

pytest.importorskip("hypothesis")
from hostile import unaligned

pytestmark = pytest.mark.slow

LOGITS, TARGET, LARGE = torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5).long(), torch.zeros(2, 8, 9)
WEIGHT, ONE, STATS = torch.ones(3), torch.ones(()), torch.zeros(2, 2, 4, 5)
FACTORS = (WEIGHT, torch.ones(2, 4, 5))
LARGE_FACTORS, COUNTS = (LARGE.long(), WEIGHT, LARGE), torch.zeros(3, 3).long()
CALLS = {
    "cross_entropy": (LOGITS, TARGET, *FACTORS, 255, 1, 0.0, True),
    "cross_entropy_with_gradient": (LOGITS, TARGET, *FACTORS, 255, 1, 0.0, True),
    "cross_entropy_backward": (ONE, LOGITS, TARGET, *FACTORS, STATS, ONE, 255, 1, 0.0),
    "scale_gradient_": (LOGITS.clone(), ONE),
    "upsample_cross_entropy": (LOGITS, *LARGE_FACTORS, 255, 1, 0.0, True, False),
    "upsample_cross_entropy_backward": (
        ONE, LOGITS, *LARGE_FACTORS, LARGE, ONE, 255, 1, 0.0, False,
    ),
    "upsample_confusion_matrix_": (COUNTS, LOGITS, LARGE.long(), 255, False),
    "confusion_matrix_": (COUNTS, TARGET, TARGET, 255),
    "normalize_pad_stack": ([LOGITS[0], LOGITS[1]], [], [], [8, 9], 0.0, False, 6, False),
    "pad_stack": ([TARGET[0], TARGET[1]], [8, 9], 255),
}  # fmt: skip


def variants(arguments, change):
    """The arguments with one tensor changed, for each of them; in lists the last."""
    for place, argument in enumerate(arguments):
        if isinstance(argument, list) and argument and isinstance(argument[-1], torch.Tensor):
            wrong = [*argument[:-1], change(argument[-1].clone())]
        elif isinstance(argument, torch.Tensor):
            wrong = change(argument)
        else:
            continue
        yield [*arguments[:place], wrong, *arguments[place + 1 :]]


@pytest.mark.parametrize("name", CALLS)
def test_one_device(emulated, name):
    op = getattr(emulated, name).default
    op(*CALLS[name])
    cpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)  # where the emulated kernels stand
    for arguments in variants(CALLS[name], lambda tensor: tensor.to("meta")):
        with pytest.raises(RuntimeError, match="all tensors on one device"):
            op.redispatch(cpu, *arguments)


@pytest.mark.parametrize("name", CALLS)
def test_aligned_memory(emulated, name):
    for arguments in variants(CALLS[name], unaligned):
        with pytest.raises(RuntimeError, match=r"aligned|expected counts"):
            getattr(emulated, name)(*arguments)


def test_aligned_logits(emulated):
    with pytest.raises(RuntimeError, match="aligned"):
        emulated.upsample_argmax(unaligned(LOGITS), [8, 9], False, 4)
