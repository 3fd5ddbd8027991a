"""Reads images and maps beside memory nobody may read, on both sides: a byte too far ends the process.

Usage: guarded_memory.py LIBRARY, the emulated operators as build.py makes them. Prints how many results were compared.
"""

# SPDX-License-Identifier: Apache-2.0

import ctypes
import itertools
import mmap
import sys

import torch

import segfast.ops  # noqa: F401  (registers torch.ops.segfast)

READABLE = 4 * mmap.PAGESIZE
DTYPES = (torch.uint8, torch.int16, torch.float32, torch.int64)


def guarded_bytes():
    """READABLE bytes between two pages without permissions."""
    memory = mmap.mmap(-1, READABLE + 2 * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (address, address + mmap.PAGESIZE + READABLE):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, 0) == 0
    return torch.frombuffer(memory, dtype=torch.uint8)[mmap.PAGESIZE : mmap.PAGESIZE + READABLE]


def compare(name, *args):
    """The same call on the CPU kernel and on the emulated one."""
    expected = getattr(torch.ops.segfast, name)(*args)
    assert torch.equal(getattr(torch.ops.segfast_emulated, name)(*args), expected)
    return 1


def main(library):
    torch.ops.load_library(library)
    memory, done = guarded_bytes(), 0
    for h, w, dtype in itertools.product((1, 3), (1, 2, 5, 8, 9, 24, 33, 100), DTYPES):
        size = 3 * h * w * dtype.itemsize
        for part in (memory[:size], memory[-size:]):
            elements = part.view(dtype).random_(0, 100)
            rows = elements.view(h, w, 3).permute(2, 0, 1)
            for image in (rows, elements.view(3, h, w), elements.view(w, h, 3).permute(2, 1, 0)):
                for width, channels_last, number in itertools.product(
                    (w, 104), (False, True), (5, 6)
                ):
                    args = ([image], [1.0, 2.0, 3.0], [3.0, 4.0, 5.0], [h + 1, width], 0.0, True)
                    done += compare("normalize_pad_stack", *args, number, channels_last)
            for labels in (elements.view(3 * h, w), elements.view(w, 3 * h).t()):
                if not dtype.is_floating_point:
                    for width in (w, w + 5, 104):  # rows of the result start at any address
                        done += compare("pad_stack", [labels, labels], [3 * h, width], 9)
    other = guarded_bytes()
    for size, dtype in itertools.product((1, 100, 1024, 1025, 2047), DTYPES):
        if not dtype.is_floating_point:
            pred = memory[-size * dtype.itemsize :].view(dtype).random_(0, 5)
            target = other[-size:].random_(0, 5)
            counts = torch.zeros(2, 5, 5, dtype=torch.int64)
            torch.ops.segfast.confusion_matrix_(counts[0], pred, target, 255)
            torch.ops.segfast_emulated.confusion_matrix_(counts[1], pred, target, 255)
            assert torch.equal(*counts)
            done += 1
    print(done)


if __name__ == "__main__":
    main(sys.argv[1])
