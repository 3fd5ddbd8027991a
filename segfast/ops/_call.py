"""How operators are called, and what their errors say.

Operators reach torch through its stable interface, which carries an error code across and leaves the message behind:
running out of memory would read "API call failed". The message is kept for the calling thread (torch 2.13 and later).
"""

# SPDX-License-Identifier: Apache-2.0

import ctypes
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import forward_ad

from segfast.errors import LabelError

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
_VECTOR_TOO_LONG = "cannot create std::vector larger"  # how the C++ library words it


def call_checked(op: Any, *args: Any) -> Any:
    """Call an operator of `torch.ops.segfast`; bad labels become a `LabelError`, torch's errors say what torch said."""
    if torch.compiler.is_compiling():
        return op(*args)
    try:
        return op(*args)
    except (RuntimeError, ValueError, MemoryError) as error:
        text = str(error)
        start = text.find("segfast::")
        if start >= 0 and "lie outside [0, " in text:
            end = text.find("?)", start)
            raise LabelError(
                text[start : end + 2] if end > 0 else text[start:].splitlines()[0]
            ) from None
        better = explained(error)
        if better is error:
            raise
        raise better from error


def refuse_tangents(op: str, tensors: Iterable[torch.Tensor]) -> None:
    """Forward-mode derivatives would be dropped without a word: an operator here has gradients only."""
    if forward_ad._current_level < 0 or torch.compiler.is_compiling():
        return
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError(
            f"segfast::{op} has no forward-mode derivative (hint: torch.func.grad or backward(), or the *_reference "
            "function)"
        )


def explained(error: RuntimeError | ValueError | MemoryError) -> RuntimeError | ValueError:
    """An error of the stable interface with torch's own message, as the type torch would have raised.

    Args:
        error: raised by an operator, in this thread, with no call into torch since.

    Returns:
        `torch.OutOfMemoryError` where memory was the reason, as batch-size finders expect; a `RuntimeError` with
        torch's message otherwise; `error` itself if it says enough, or if torch is too old to tell.
    """
    text = str(error)
    if isinstance(error, MemoryError) or text.startswith(_VECTOR_TOO_LONG):
        return torch.OutOfMemoryError(
            "segfast: out of memory for an operator's working arrays (hint: smaller or fewer images)"
        )
    if "API call failed" not in text:
        return error
    message = _last_message()
    if not message:
        return error
    kind = torch.OutOfMemoryError if any(m in message for m in _OUT_OF_MEMORY) else RuntimeError
    return kind(message)


def _last_message() -> str:
    """The last message of this thread; empty before torch 2.13."""
    library = ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / "libtorch_cpu.so"))
    get = getattr(library, "torch_exception_get_what_without_backtrace", None)
    if get is None:
        return ""
    get.restype = ctypes.c_char_p
    return (get() or b"").decode(errors="replace")
