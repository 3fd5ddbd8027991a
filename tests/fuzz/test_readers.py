"""Damaged files: cut, spliced, bytes changed, numbers in headers replaced. Longer runs: readers.py under atheris."""

# SPDX-License-Identifier: Apache-2.0

import os
import resource
import struct
import sys
import warnings
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from readers import READERS, feed

pytestmark = pytest.mark.slow
CASES = int(os.environ.get("SEGFAST_FUZZ_CASES", "150"))
fuzz = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
FILES = {kind: files() for kind, (files, _) in READERS.items()}
WORDS = [
    struct.pack(order + kind, value % 2 ** (8 * struct.calcsize(kind)))
    for order in "<>"
    for kind in "HIQ"
    for value in (0, 1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, -1)
]
TEXT = [
    b"{",
    b"}",
    b"[",
    b"&a ",
    b"*a",
    b"!!python/object/apply:os.system ",
    b"_base_: x",
    b"{{ ",
    b"\x00",
    b"\xff\xfe",
    b"9" * 400,
]


@st.composite
def damaged(draw, kind):
    """A suffix and the bytes of one file of that kind after a few kinds of damage."""
    suffix, data = draw(st.sampled_from(FILES[kind]))
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at, how = draw(st.integers(0, len(data))), draw(st.integers(0, 6))
        if how == 0:
            data = data[:at]
        elif how == 1:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif how == 2:
            word = draw(st.sampled_from(WORDS))
            data[at : at + len(word)] = word
        elif how == 3:
            del data[at : at + draw(st.integers(1, 40))]
        elif how == 4:
            other = draw(st.sampled_from(FILES[kind]))[1]
            start = draw(st.integers(0, len(other)))
            data[at:at] = other[start : start + draw(st.integers(1, 300))]
        elif how == 5:
            data[at:at] = draw(st.sampled_from(TEXT))
        else:
            data = data[:at] + data[at:] * draw(st.integers(1, 3))
    if draw(st.integers(0, 9)) == 0:
        suffix = draw(st.sampled_from(FILES[kind]))[0]
    return suffix, bytes(data)


@pytest.mark.parametrize("kind", READERS)
def test_whole_files_are_read(kind, tmp_path):
    for suffix, data in FILES[kind]:
        feed(kind, suffix, data, tmp_path)


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFAST_MAX_PIXELS", "1000000")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @fuzz
    @given(damaged(kind))
    def read(file):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            feed(kind, *file, tmp_path)

    read()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 600 * 1024, f"{grown >> 10} MiB more than before"
