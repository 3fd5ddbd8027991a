"""The command: imports the checkout's own `bench`, because nothing is installed yet."""

# SPDX-License-Identifier: Apache-2.0

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from bench.gpu_proof.driver import main

    sys.exit(main(sys.argv[1:]))
