"""What every operator on logits and labels refuses, in one wording."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from torch import Tensor

LABEL_DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)
# As in csrc. Columns and their bytes are numbered in 32 bits; a task of a resize keeps a row of every class.
LONGEST_SIDE = 2**28
LONGEST_RESIZED = MOST_CLASSES = 2**24
LOGIT_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_logits(op: str, logits: Tensor) -> None:
    """Floating point; float64 on the CPU only."""
    if logits.dtype not in LOGIT_DTYPES:
        raise TypeError(
            f"segfast::{op}: expected floating-point logits, got {logits.dtype} (hint: logits.float())"
        )
    if logits.dtype == torch.float64 and logits.device.type != "cpu":
        raise TypeError(f"segfast::{op}: float64 runs on the CPU only (hint: logits.float())")


def check_label_map(op: str, name: str, labels: Tensor, hint: str) -> None:
    """One of the four integer types; `hint` says how such a map is usually made."""
    if labels.dtype not in LABEL_DTYPES:
        raise TypeError(
            f"segfast::{op}: expected {name} uint8, int16, int32 or int64, got {labels.dtype} (hint: {hint})"
        )


def check_target(op: str, target: Tensor, logits: Tensor) -> None:
    """Class indices where the logits are."""
    check_label_map(op, "target", target, "class indices, not probabilities; target.long()")
    if target.device != logits.device:
        raise ValueError(f"segfast::{op}: expected target on {logits.device}, got {target.device}")


def check_upsampled(op: str, logits: Tensor, target: Tensor) -> None:
    """Logits (N, C, h, w) with C, h, w >= 1 and a target (N, H, W) to resize them to."""
    if logits.dim() != 4 or target.dim() != 3 or logits.shape[0] != target.shape[0]:
        raise ValueError(
            f"segfast::{op}: expected logits (N, C, h, w) and target (N, H, W), got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}" + (" (hint: target.squeeze(1))" if target.dim() == 4 else "")
        )
    check_classes(op, logits)
    check_sides(op, target.shape[1:], LONGEST_RESIZED)


def check_classes(op: str, logits: Tensor) -> None:
    """At least one class and, where there are rows and columns to resize, one of each; and not too many."""
    if 0 in logits.shape[1:]:
        raise ValueError(
            f"segfast::{op}: expected at least one class and h, w >= 1, got logits {tuple(logits.shape)}"
        )
    check_class_count(op, logits.shape[1])
    check_sides(op, logits.shape[2:], LONGEST_RESIZED)


def check_class_count(op: str, count: int, kind: str = "classes") -> None:
    """As many classes (or channels) as the kernels have room for; they check what is compiled or exported."""
    if torch.compiler.is_compiling():
        return
    if count > MOST_CLASSES:
        raise ValueError(f"segfast::{op}: expected at most {MOST_CLASSES} {kind}, got {count}")


def check_sides(op: str, sides: Sequence[int], longest: int = LONGEST_SIDE) -> None:
    """Rows and columns that the kernels can number; they check what is compiled or exported."""
    if torch.compiler.is_compiling():  # a comparison would bound a dynamic size
        return
    for side in sides:
        if side > longest:
            raise ValueError(
                f"segfast::{op}: expected heights and widths of at most {longest}, got {side}"
            )


def two_sides(op: str, size: Sequence[int]) -> tuple[int, int]:
    """`size` as (H, W), or a ValueError where it is anything but two whole numbers."""
    sides = tuple(size) if isinstance(size, Iterable) else ()
    if len(sides) != 2 or not all(isinstance(side, Integral | torch.SymInt) for side in sides):
        raise ValueError(
            f"segfast::{op}: expected size (H, W), two whole numbers, got {size} (hint: image.shape[-2:])"
        )
    height, width = sides
    return height, width


def counts_to_fill(op: str, out: Tensor | None, num_classes: int, device: torch.device) -> Tensor:
    """A new (C, C) int64 matrix of zeros, or `out` if it can take the counts."""
    if out is None:
        return torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    if (
        out.shape != (num_classes, num_classes)
        or out.dtype != torch.int64
        or out.device != device
        or not out.is_contiguous()
    ):
        raise ValueError(
            f"segfast::{op}: expected out ({num_classes}, {num_classes}) contiguous int64 on {device}, got "
            f"{tuple(out.shape)} {out.dtype} on {out.device}"
        )
    return out
