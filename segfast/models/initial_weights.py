"""Weights as a model's own `init_weights` wants them, or its parts'."""

# SPDX-License-Identifier: Apache-2.0

from torch import nn


def init_parts(module: nn.Module) -> None:
    """Call `init_weights` of the outermost parts that keep MMEngine's contract: they have an `init_cfg` beside it.

    Parts of other packages may have a method of that name, which would throw their pretrained weights away.
    """
    for part in module.children():
        if not (hasattr(part, "init_weights") and hasattr(part, "init_cfg")):
            init_parts(part)
        elif not getattr(part, "is_init", False):
            part.init_weights()  # type: ignore[operator]
