"""Build backend: scikit-build-core, plus torch as a build requirement only where the target has none.

A static `requires = ["torch"]` would download a second torch into every isolated build; no requirement at all would
make an empty environment fail. Source: PEP 517 (hooks), scikit-build-core's backend.
"""

# SPDX-License-Identifier: Apache-2.0

from scikit_build_core import build as _base
from scikit_build_core.build import (  # noqa: F401  (hooks that are passed through)
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from segfast_torch import find_torch

_TORCH_REQUIREMENT = [] if find_torch() else ["torch>=2.11"]


def get_requires_for_build_wheel(config_settings: dict | None = None) -> list[str]:
    """What scikit-build-core asks for, and torch if the target environment has none."""
    return [*_base.get_requires_for_build_wheel(config_settings), *_TORCH_REQUIREMENT]


def get_requires_for_build_editable(config_settings: dict | None = None) -> list[str]:
    """The same for an editable install."""
    return [*_base.get_requires_for_build_editable(config_settings), *_TORCH_REQUIREMENT]
