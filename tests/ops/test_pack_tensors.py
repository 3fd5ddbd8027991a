"""pack_tensors: bytes, alignment, strides, threads, the interpreter lock."""

# SPDX-License-Identifier: Apache-2.0
import random
import threading
import time

import pytest
import torch

from segfast.ops.pack_tensors import (
    ALIGNMENT,
    pack_tensors,
    pack_tensors_reference,
    packed_layout,
    packed_layout_reference,
    unpack_tensors,
)

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
]  # fmt: skip
POISON = 0xA5


def bits(*shape, dtype=torch.uint8):
    """Random bytes read as `dtype`, NaNs included: packing moves bits."""
    size = torch.empty(0, dtype=dtype).element_size()
    count = torch.Size(shape).numel() * size
    high = 2 if dtype == torch.bool else 256
    return torch.randint(0, high, (count,), dtype=torch.uint8).view(dtype).view(shape)


def same_bits(a, b):
    a, b = (torch.empty(t.shape, dtype=t.dtype).copy_(t).view(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(a, b)


def packed(tensors, pack=pack_tensors):
    """The views and the poisoned buffer they lie in, with room behind."""
    layout = packed_layout(tensors)
    buffer = torch.full((layout.num_bytes + 1000,), POISON, dtype=torch.uint8)
    pack(tensors, buffer)
    return unpack_tensors(buffer, tensors, layout), buffer, layout


def check(tensors):
    views, buffer, layout = packed(tensors)
    assert layout == packed_layout_reference(tensors)
    untouched = torch.ones(buffer.numel(), dtype=torch.bool)
    for tensor, view, offset in zip(tensors, views, layout.offsets, strict=True):
        assert view.shape == tensor.shape
        assert view.dtype == tensor.dtype
        assert view.stride() == torch.empty_like(tensor).stride()
        assert same_bits(view, tensor), (tensor.shape, tensor.stride())
        assert offset % ALIGNMENT == 0
        untouched[offset : offset + tensor.numel() * tensor.element_size()] = False
    assert (buffer[untouched] == POISON).all()
    expected = torch.full_like(buffer, POISON)
    pack_tensors_reference(tensors, expected)
    assert torch.equal(buffer, expected)


def test_golden():
    image = torch.arange(12, dtype=torch.uint8).view(2, 2, 3).permute(2, 0, 1)  # interleaved
    label = torch.tensor([[300, -1]], dtype=torch.int16)
    (a, b), buffer, layout = packed([image, label])
    assert layout == (512, [0, 256], [(1, 6, 3), (2, 1)])
    assert buffer[:12].tolist() == list(range(12))  # as it lay in memory
    assert buffer[256:260].tolist() == [44, 1, 255, 255]
    assert a[1].tolist() == [[1, 4], [7, 10]]
    assert b.tolist() == [[300, -1]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_dense_cropped_and_strided(dtype):
    image = bits(37, 41, 3, dtype=dtype)
    tensors = [
        image.permute(2, 0, 1),  # an image as PackSegInputs makes it
        image[3:30, 5:40].permute(2, 0, 1),  # a crop of one: rows
        image[:, :, ::2].permute(2, 0, 1),  # every other channel: elements
        image[::3].transpose(0, 1),
        image[..., 0],
        image[:1].expand(4, -1, -1, -1),
        bits(dtype=dtype),
        bits(0, 5, dtype=dtype),
        bits(5, dtype=dtype)[2:3],
    ]
    check(tensors)


def test_thirteen_bands_and_odd_sizes():
    check(
        [
            bits(33, 31, 13, dtype=torch.int16).permute(2, 0, 1),
            bits(1, 33, 31),
            bits(255),
            bits(256),
            bits(257),
        ]
    )


def test_random_views():
    """What slicing, permuting, expanding and odd strides of singletons can make."""
    rng = random.Random(0)
    for _ in range(300):
        tensors = []
        for _ in range(rng.randint(1, 5)):
            t = bits(
                *(rng.choice([0, 1, 2, 3, 7]) for _ in range(rng.randint(0, 4))),
                dtype=rng.choice(DTYPES),
            )
            for _ in range(rng.randint(0, 3) if t.dim() else 0):
                d, kind = rng.randrange(t.dim()), rng.randrange(4)
                if kind == 0:
                    t = t.permute(rng.sample(range(t.dim()), t.dim()))
                elif kind == 1:
                    t = t[(slice(None),) * d + (slice(t.size(d) // 3, None, rng.randint(1, 2)),)]
                elif kind == 2 and t.dim() < 5:
                    t = t.unsqueeze(d).expand(*t.shape[:d], rng.randint(1, 3), *t.shape[d:])
                elif kind == 3 and t.size(d) == 1:
                    t = t.as_strided(
                        t.shape, [5 if i == d else s for i, s in enumerate(t.stride())]
                    )
            tensors.append(t)
        check(tensors)


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_dealt_to_threads_meet(threads):
    """Larger than one thread's share, with tensors and rows across the seams."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        image = bits(701, 503, 3)
        check(
            [
                image.permute(2, 0, 1),
                image[1:, 1:].permute(2, 0, 1),
                image[:, :, 0],
                bits(1, 701, 503),
            ]
        )
        check([bits(400, 300, 2, dtype=torch.int64)[..., 1].t(), bits(3)])
    finally:
        torch.set_num_threads(before)


def test_nothing_to_pack():
    assert packed_layout([]) == (0, [], [])
    assert packed([])[0] == []
    check([bits(0, 3), bits(2, 0)])


def test_a_view_of_a_buffer_that_starts_inside_its_memory():
    tensors = [bits(5, dtype=torch.int32), bits(3, 4)]
    layout = packed_layout(tensors)
    buffer = torch.zeros(2 * layout.num_bytes, dtype=torch.uint8)[layout.num_bytes :]
    pack_tensors(tensors, buffer)
    for tensor, view in zip(tensors, unpack_tensors(buffer, tensors, layout), strict=True):
        assert same_bits(tensor, view)


def test_rejects():
    with pytest.raises(
        TypeError, match=r"strided tensors on the CPU, got torch.strided on meta at index 1"
    ):
        packed_layout([bits(2), torch.ones(2, device="meta")])
    with pytest.raises(TypeError, match=r"got torch.sparse_coo on cpu"):
        packed_layout([torch.eye(2).to_sparse()])
    with pytest.raises(
        TypeError, match=r"expected buffer \(B,\) uint8, contiguous, got \(4,\) torch.int8"
    ):
        pack_tensors([bits(2)], torch.zeros(4, dtype=torch.int8))
    with pytest.raises(RuntimeError, match="at least 512 bytes, got 511"):
        pack_tensors([bits(257)], torch.zeros(511, dtype=torch.uint8))


def test_opcheck():
    tensors = [bits(4, 5, 3).permute(2, 0, 1), bits(3, dtype=torch.int64)]
    torch.library.opcheck(torch.ops.segfast.packed_layout, (tensors,))
    torch.library.opcheck(
        torch.ops.segfast.pack_tensors_, (torch.zeros(1024, dtype=torch.uint8), tensors)
    )


def test_other_threads_run_while_one_packs():
    tensors = [torch.zeros(3, 4000, 8000, dtype=torch.uint8)[:, :, ::2]]
    buffer = torch.zeros(packed_layout(tensors).num_bytes, dtype=torch.uint8)

    def ticks_within_one_call():
        span, ticks = [], []

        def pack():
            span.append(time.perf_counter())
            pack_tensors(tensors, buffer)
            span.append(time.perf_counter())

        thread = threading.Thread(target=pack)
        thread.start()
        while thread.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(2e-4)
        return sum(span[0] < tick < span[1] for tick in ticks)

    # With the lock held there are one or two at the edges; a busy machine may starve us, not ten times.
    assert any(ticks_within_one_call() >= 6 for _ in range(10))
