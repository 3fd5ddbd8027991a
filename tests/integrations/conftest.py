"""mmseg imports beside mmcv-lite here too."""

# SPDX-License-Identifier: Apache-2.0
from upstream.conftest import stub_mmcv

stub_mmcv()
