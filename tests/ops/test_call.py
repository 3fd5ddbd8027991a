"""What errors say on their way from an operator to the user: never less than torch said."""

# SPDX-License-Identifier: Apache-2.0

import os
import subprocess
import sys

import pytest
import torch

from segfast.ops._call import call_checked, explained


def failing(error):
    def op():
        raise error

    return op


def test_arrays_that_are_too_long_are_a_lack_of_memory():
    """The words with which the C++ library refuses a std::vector of more elements than there are addresses."""
    error = RuntimeError("cannot create std::vector larger than max_size()\nmore lines")
    with pytest.raises(torch.OutOfMemoryError, match="working arrays") as raised:
        call_checked(failing(error))
    assert raised.value.__cause__ is error


def test_a_stack_that_mentions_vectors_is_not_a_lack_of_memory():
    text = "shape mismatch\nframe #3: foo(std::vector<long, std::allocator<long> > const&)"
    error = RuntimeError(text)
    assert explained(error) is error
    with pytest.raises(RuntimeError, match="shape mismatch") as raised:
        call_checked(failing(error))
    assert type(raised.value) is RuntimeError


def test_stacks_of_torch_are_kept():
    """TORCH_SHOW_CPP_STACKTRACES=1 puts C++ frames, and std::vector with them, behind every message."""
    code = (
        "import torch\n"
        "from segfast import ops\n"
        "try:\n"
        "    ops.cross_entropy(torch.randn(2, 3, 4, 5).to_sparse(), torch.zeros(2, 4, 5, dtype=torch.long))\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    environment = os.environ | {"TORCH_SHOW_CPP_STACKTRACES": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stdout
    assert "OutOfMemory" not in done.stdout
    assert "working arrays" not in done.stdout
