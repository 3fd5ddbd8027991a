"""Hands a reader to libFuzzer, for as long as one likes; CI runs test_readers.py instead.

    pip install atheris
    python tests/fuzz/under_atheris.py image corpus/ -max_total_time=600

The first argument is one of readers.READERS, the second a folder for what was found worth keeping, the others libFuzzer's.
"""

# SPDX-License-Identifier: Apache-2.0

import os
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(
    include=["PIL", "yaml", "tomllib", "json", "segfast", "torch._weights_only_unpickler"]
):
    from readers import READERS, feed


def main() -> None:
    """The first byte of an input chooses the suffix, the others are the file."""
    os.environ.setdefault("SEGFAST_MAX_PIXELS", "1000000")
    kind, folder, corpus = sys.argv.pop(1), tempfile.mkdtemp(), sys.argv[1]
    files = READERS[kind][0]()
    suffixes = sorted({suffix for suffix, _ in files})
    if not os.listdir(corpus):
        for i, (suffix, data) in enumerate(files):
            Path(corpus, str(i)).write_bytes(bytes([suffixes.index(suffix)]) + data)

    def one_input(data: bytes) -> None:
        if data:
            feed(kind, suffixes[data[0] % len(suffixes)], data[1:], folder)

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
