"""How to call each operator: what to draw for given sizes, the call, its definition, and how far the two may differ.

A property that every operator must have is one test parametrised over `CALLS`.
"""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from dataclasses import dataclass

import torch
from helpers import assert_same_choice, random_labels, strided
from torch import Tensor

from segfast import ops

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Sizes:
    """N, C, the logits' (h, w), the labels' (H, W), and dtypes."""

    N: int = 2
    C: int = 19
    small: tuple[int, int] = (9, 11)
    size: tuple[int, int] = (20, 31)
    logits: torch.dtype = torch.float32
    labels: torch.dtype = torch.uint8

    def __str__(self):
        (h, w), (H, W) = self.small, self.size
        return f"{self.N}x{self.C}x{h}x{w}-{H}x{W}"


# What runs of blocks, vectors and rows end in the middle of; single rows, columns, pixels; one class and a thousand.
SHAPES = [
    Sizes(),
    Sizes(N=1, C=1, small=(1, 1), size=(1, 1)),
    Sizes(N=1, C=2, small=(1, 1), size=(7, 9)),
    Sizes(N=3, C=5, small=(17, 19), size=(5, 6)),
    Sizes(N=1, C=150, small=(1, 37), size=(3, 149)),
    Sizes(N=2, C=7, small=(33, 1), size=(131, 5)),
    Sizes(N=1, C=1000, small=(5, 6), size=(20, 24), labels=torch.int16),
    Sizes(N=2, C=21, small=(16, 65), size=(64, 260), logits=torch.bfloat16),
    Sizes(N=1, C=3, small=(40, 300), size=(41, 303), labels=torch.int64),
]


@dataclass(frozen=True)
class Call:
    """An operator with its options fixed; the inputs go by name and are drawn on the CPU."""

    name: str
    draw: Callable  # Sizes -> inputs
    op: Callable
    reference: Callable  # takes the same inputs
    compare: Callable  # (actual, expected, inputs)
    leaf: str = ""  # the input that gets a gradient

    def __repr__(self):
        return self.name

    def run(self, inputs, op=None):
        """All outputs, and the gradient of the first with respect to the leaf."""
        if self.leaf:
            leaves = on_each(lambda t: t.detach().requires_grad_(), inputs[self.leaf])
            inputs = {**inputs, self.leaf: leaves}
        outputs = (op or self.op)(**inputs)
        outputs = tuple(outputs) if isinstance(outputs, tuple) else (outputs,)
        if self.leaf:
            first = outputs[0]
            upstream = torch.linspace(
                0.5, 1.5, first.numel(), dtype=first.dtype, device=first.device
            )
            outputs += torch.autograd.grad(first, leaves, upstream.view(first.shape))
        return tuple(t.detach() for t in outputs)

    def truth(self, inputs):
        """The same from the eager definition, logits and weights in float64."""
        names = ("logits", "weight", "pixel_weight")
        widened = {name: inputs[name].double() for name in names if name in inputs}
        return self.run(inputs | widened, self.reference)


def on_each(function, value):
    """`function` of a tensor or of each in a list; numbers and sizes stay."""
    if isinstance(value, list):
        return [function(t) for t in value]
    return function(value) if isinstance(value, Tensor) else value


def mapped(function, inputs):
    """The inputs with `function` of every tensor."""
    return {name: on_each(function, value) for name, value in inputs.items()}


# Where a dimension is missing between an input and (N, C, H, W).
MISSING = {
    "logits": (), "images": (0,), "maps": (0, 0), "pred": (1,), "target": (1,), "pixel_weight": (1,),
}  # fmt: skip


def placed(inputs, device, layout="contiguous"):
    """The inputs on a device, in a memory layout of `helpers.LAYOUTS`."""

    def lay_out(x, missing):
        for dim in missing:
            x = x.unsqueeze(dim)
        x = strided(x, layout)
        for dim in missing:
            x = x.squeeze(dim)
        return x

    on_device = mapped(lambda t: t.to(device), inputs)
    laid_out = {
        name: on_each(lambda t, missing=missing: lay_out(t, missing), on_device[name])
        for name, missing in MISSING.items()
        if name in inputs
    }
    return on_device | laid_out


def raw(x):
    """The bytes of a tensor's values."""
    return x.clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8)


def same_bits(some, others):
    """Equal shapes, dtypes and bytes: NaN equals itself, and 0 is not -0."""
    return len(some) == len(others) and all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(raw(a), raw(b))
        for a, b in zip(some, others, strict=True)
    )


def exact(actual, expected, inputs):
    """To the bit."""
    assert same_bits(actual, expected)


def close(actual, expected, inputs):
    """Floats to a few units of their dtype; counts but for pixels where two blends tie up to rounding."""
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        if a.dtype.is_floating_point:
            largest = b.double().nan_to_num().abs().max().item() if b.numel() else 0.0
            largest = largest or 0.05  # a single class has loss and gradient 0 but for rounding
            atol = max(4 * torch.finfo(a.dtype).eps, 4e-6) * largest + 1e-9
            torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=atol, equal_nan=True)
        else:
            assert (a - b).abs().sum() <= 2 + 0.02 * b.sum()


def choice(actual, expected, inputs):
    """The class of the largest blend; few mantissa bits make ties that float32 and float64 round apart."""
    if actual[0].numel():
        assert_same_choice(actual[0], inputs["logits"], inputs["size"], most=2e-2)
    else:
        assert actual[0].shape == expected[0].shape


def draw_images(s):
    sides = [(max(1, s.size[0] - 3 * n), max(1, s.size[1] - 2 * n)) for n in range(max(1, s.N))]
    return {"images": [torch.randint(256, (3, *side), dtype=torch.uint8) for side in sides]}


def draw_float_images(s):
    return {"images": [torch.randn(image.shape) for image in draw_images(s)["images"]]}


def draw_maps(s):
    return {"maps": [image[0].to(s.labels) for image in draw_images(s)["images"]]}


def draw_labels(s):
    """uint8 names 255 classes beside the ignored one."""
    return random_labels((s.N, *s.size), min(s.C, 255), dtype=s.labels)


def draw_loss(s):
    logits = (torch.randn(s.N, s.C, *s.size) * 3).to(s.logits)
    return {"logits": logits, "target": draw_labels(s), "weight": torch.rand(s.C) + 0.1}


def draw_resized_loss(s):
    logits = (torch.randn(s.N, s.C, *s.small) * 3).to(s.logits)
    return draw_loss(s) | {"logits": logits}


def with_pixel_weight(draw):
    return lambda s: draw(s) | {"pixel_weight": torch.rand(s.N, *s.size)}


def draw_resize(s):
    return {"logits": draw_resized_loss(s)["logits"], "size": s.size}


def draw_resized_pairs(s):
    inputs = draw_resized_loss(s)
    return {"logits": inputs["logits"], "target": inputs["target"]}


def draw_pairs(s):
    pred = torch.randint(min(s.C, 255), (s.N, *s.size)).to(s.labels)
    return {"pred": pred, "target": draw_labels(s), "num_classes": s.C}


def call(name, op, draw, compare, *, leaf="", reference=None, label="", **options):
    """A row of the table; the reference has the operator's name and takes the same options."""
    reference = reference or getattr(ops, f"{op}_reference")
    function = getattr(ops, op)

    def with_options(f):
        return lambda **inputs: f(**inputs, **options)

    return Call(name, draw, with_options(function), with_options(reference), compare, leaf)


CALLS = [
    call("normalize_pad_stack", "normalize_pad_stack", draw_images, exact, mean=MEAN, std=STD,
         size_divisor=16, pad_value=0.5, reverse_channels=True),
    call("normalize_pad_stack_channels_last", "normalize_pad_stack", draw_images, exact, mean=MEAN, std=STD,
         dtype=torch.bfloat16, memory_format=torch.channels_last),
    call("normalize_pad_stack_gradient", "normalize_pad_stack", draw_float_images, close, leaf="images",
         mean=MEAN, std=STD, size_divisor=32),
    call("pad_stack", "pad_stack", draw_maps, exact, size_divisor=16),
    call("cross_entropy", "cross_entropy", draw_loss, close, leaf="logits", ignore_index=255, label_smoothing=0.1),
    call("cross_entropy_none", "cross_entropy", with_pixel_weight(draw_loss), close, leaf="logits",
         ignore_index=255, reduction="none"),
    call("upsample_cross_entropy", "upsample_cross_entropy", draw_resized_loss, close, leaf="logits",
         ignore_index=255, label_smoothing=0.1, return_accuracy=True),
    call("upsample_cross_entropy_none", "upsample_cross_entropy", with_pixel_weight(draw_resized_loss), close,
         leaf="logits", ignore_index=255, reduction="none", align_corners=True),
    call("upsample_argmax", "upsample_argmax", draw_resize, choice, dtype=torch.int16),
    call("confusion_matrix", "confusion_matrix", draw_pairs, exact),
    call("upsample_confusion_matrix", "upsample_confusion_matrix", draw_resized_pairs, close),
]  # fmt: skip
