"""torch.ops.segfast without the functions around it: whatever does not fit is refused before memory is touched."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

import segfast.ops  # noqa: F401  (registers torch.ops.segfast)

ops = torch.ops.segfast


def floats(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


def integers(*shape, dtype=torch.int64):
    return torch.zeros(shape, dtype=dtype)


X, Y, STATS, ONE = floats(2, 3, 4, 5), integers(2, 4, 5), floats(2, 2, 4, 5), floats()
BIG, BIG_STATS = integers(2, 8, 9), floats(2, 2, 8, 9)
WRONG_LOGITS = [
    floats(),
    floats(2, 0, 4, 5),
    integers(2, 3, 4, 5),
    floats(2, 3, 4, 5, dtype=torch.complex64),
]
WRONG_FACTORS = [floats(2), floats(3, dtype=torch.float64), floats(6)[::2], integers(3)]
WRONG_MAPS = [floats(2, 4), floats(2, 4, 5, dtype=torch.float64), floats(2, 3, 4, 5)]
WRONG_SCALARS = [floats(2), floats(0), floats(dtype=torch.float64), floats(dtype=torch.int32)]
WRONG_STATS = [
    floats(2, 2, 4),
    floats(1, 2, 4, 5),
    floats(4, 2, 4, 5)[::2],
    STATS.double(),
    floats(0),
]
CODES = [-1, 3, 2**40]
WRONG_COUNTS = [
    integers(3),
    integers(3, 4),
    integers(3, 3, dtype=torch.int32),
    integers(6, 6)[::2, ::2],
]

# operator: fitting arguments, then what does not fit in place of each
CASES = {
    "cross_entropy": (
        [X, Y, floats(3), floats(2, 4, 5), 255, 1, 0.0, True],
        {
            0: [*WRONG_LOGITS, floats(2, 3, 4), floats(2, 3, 5, 4), floats(1, 3, 4, 5), floats(2, 3, 4, 6)],
            1: [integers(2, 4, 4), integers(2, 3, 4, 5), integers(3), integers(), floats(2, 4, 5)],
            2: WRONG_FACTORS, 3: WRONG_MAPS, 5: CODES,
        },
    ),
    "cross_entropy_backward": (
        [ONE, X, Y, floats(3), floats(2, 4, 5), STATS, ONE, 255, 1, 0.0],
        {
            0: WRONG_SCALARS, 1: [*WRONG_LOGITS, floats(2, 3, 4, 4)], 2: [integers(2, 4), floats(2, 4, 5)],
            3: WRONG_FACTORS, 4: WRONG_MAPS, 5: WRONG_STATS, 6: WRONG_SCALARS, 8: [0, *CODES],
        },
    ),
    "upsample_cross_entropy": (
        [X, BIG, floats(3), floats(2, 8, 9), 255, 1, 0.0, True, False],
        {0: [*WRONG_LOGITS, floats(1, 3, 4, 5), floats(2, 3, 4), floats(2, 3, 0, 5)], 1: [integers(1, 8, 9), integers(2, 8)],
         2: WRONG_FACTORS, 3: WRONG_MAPS, 5: CODES},
    ),
    "upsample_cross_entropy_with_gradient": (
        [X, BIG, floats(3), floats(2, 8, 9), 255, 1, 0.0, True, False],
        {0: [*WRONG_LOGITS, floats(1, 3, 4, 5)], 1: [integers(1, 8, 9)], 2: WRONG_FACTORS, 3: WRONG_MAPS, 5: [0, *CODES]},
    ),
    "upsample_cross_entropy_backward": (
        [ONE, X, BIG, floats(3), floats(2, 8, 9), BIG_STATS, ONE, 255, 1, 0.0, False],
        {
            0: WRONG_SCALARS, 1: [*WRONG_LOGITS, floats(1, 3, 4, 5)], 2: [integers(1, 8, 9)], 3: WRONG_FACTORS, 4: WRONG_MAPS,
            5: [STATS, BIG_STATS.double(), floats(0)], 6: WRONG_SCALARS, 8: [0, *CODES],
        },
    ),
    "scale_gradient": (
        [ONE, X, X.clone(), ONE, 1],
        {0: WRONG_SCALARS, 1: [*WRONG_LOGITS, floats(2, 3, 4), X.double()],
         2: [floats(2, 3, 4), X.double(), X.transpose(2, 3)], 3: WRONG_SCALARS, 4: [0, *CODES]},
    ),
    "confusion_matrix_": (
        [integers(3, 3), Y, Y, 255],
        {0: WRONG_COUNTS, 1: [integers(2, 4), floats(2, 4, 5)], 2: [integers(2, 5, 4), floats(2, 4, 5)]},
    ),
    "upsample_confusion_matrix_": (
        [integers(3, 3), X, BIG, 255, False],
        {0: [*WRONG_COUNTS, integers(4, 4)], 1: [*WRONG_LOGITS, floats(1, 3, 4, 5)], 2: [integers(1, 8, 9), floats(2, 8, 9)]},
    ),
    "upsample_argmax": (
        [X, [8, 9], False, 4],
        {0: WRONG_LOGITS, 1: [[], [8], [8, 0], [-1, 9], [8, 9, 1], [2**31, 1]], 3: [1, 6, 11]},
    ),
    "normalize_pad_stack": (
        [[floats(3, 4, 5)], [0.0] * 3, [1.0] * 3, [8, 9], 0.0, False, 6, False],
        {0: [[], [floats(3, 4)], [floats(3, 4, 5), floats(2, 4, 5)], [floats(3, 4, 5), integers(3, 4, 5)],
             [floats(3, 4, 5, dtype=torch.complex64)]],
         1: [[0.0]], 2: [[1.0], []], 3: [[8], [1, 9], [2**28 + 1, 9]],
         6: [-1, 0, 1, 3, 4, 7, 8, 99, 2**40]},
    ),
    "pad_stack": (
        [[integers(4, 5)], [8, 9], 255],
        {0: [[], [integers(3, 4, 5)], [integers(4, 5), floats(4, 5)]], 1: [[8], [1, 9], [2**28 + 1, 9]]},
    ),
    "pack_tensors_": (
        [torch.zeros(512, dtype=torch.uint8), [floats(4, 5)]],
        {0: [torch.zeros(128, dtype=torch.uint8), floats(512), torch.zeros(1024, dtype=torch.uint8)[::2]]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_fitting_arguments(name):
    getattr(ops, name)(*CASES[name][0])


@pytest.mark.parametrize(
    ("name", "place"), [(name, place) for name, (_, wrong) in CASES.items() for place in wrong]
)
def test_arguments_that_do_not_fit(name, place):
    arguments, wrong = CASES[name]
    for value in wrong[place]:
        changed = [*arguments[:place], value, *arguments[place + 1 :]]
        with pytest.raises(
            (RuntimeError, ValueError), match=r"expected|API call failed|no tensor arguments"
        ):
            getattr(ops, name)(*changed)


@pytest.mark.parametrize("reduction", [0, 1])
def test_the_gradient_of_every_loss_has_its_shape(reduction):
    """Reduction "none" wants a gradient per pixel, the others one."""
    arguments = CASES["cross_entropy_backward"][0]
    upstream = [ONE, floats(2, 4, 5)]
    fitting, other = upstream[:: -1 if reduction == 0 else 1]
    ops.cross_entropy_backward(fitting, *arguments[1:8], reduction, 0.0)
    with pytest.raises(RuntimeError, match="grad_loss of the loss's shape"):
        ops.cross_entropy_backward(other, *arguments[1:8], reduction, 0.0)


# An operator of several tensors, the place of one of them among its arguments, and its place in a list.
TENSORS = [
    (name, place, inner)
    for name, (arguments, _) in CASES.items()
    for place, argument in enumerate(arguments)
    for inner, tensor in (enumerate(argument) if isinstance(argument, list) else [(None, argument)])
    if isinstance(tensor, torch.Tensor) and name != "upsample_argmax"
]


def changed(name, place, inner, change):
    """The fitting arguments with one tensor changed; in a list, behind the one that fits."""
    arguments = list(CASES[name][0])
    if inner is None:
        arguments[place] = change(arguments[place])
    else:
        arguments[place] = [*arguments[place], change(arguments[place][inner])]
    return arguments


@pytest.mark.parametrize(("name", "place", "inner"), TENSORS)
def test_one_device_for_all_tensors(name, place, inner):
    """What torch dispatches by the first device it finds, sent to the CPU's kernel here with a tensor that lies elsewhere."""
    arguments = changed(name, place, inner, lambda tensor: tensor.to("meta"))
    cpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    with pytest.raises(RuntimeError, match=r"one device|tensors on the CPU"):
        getattr(ops, name).default.redispatch(cpu, *arguments)
