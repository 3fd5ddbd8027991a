"""mmseg imports beside mmcv-lite here too."""

# SPDX-License-Identifier: Apache-2.0
from upstream.conftest import _own_scope, stub_mmcv  # noqa: F401  (a fixture)

stub_mmcv()
