"""`python -m segfast` is the console script `segfast`."""

# SPDX-License-Identifier: Apache-2.0

import sys

from segfast.cli import main

sys.exit(main())
