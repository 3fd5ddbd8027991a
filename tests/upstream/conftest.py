"""What the comparisons with the real packages share: mmcv-lite, which lacks its compiled half, lets mmseg import."""

# SPDX-License-Identifier: Apache-2.0
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import pytest


class _CompiledHalf(types.ModuleType):
    """Stands for `mmcv._ext`: every operator exists, and none does anything."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def stub_mmcv():
    """Put the stand-in where mmcv.ops looks for its operators, unless they are there."""
    spec = importlib.util.find_spec("mmcv")
    if spec is None or not spec.submodule_search_locations:
        return
    folder = Path(next(iter(spec.submodule_search_locations)))
    if not list(folder.glob("_ext*.so")) and not list(folder.glob("_ext*.pyd")):
        module = _CompiledHalf("mmcv._ext")
        module.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)  # a Runner looks for it
        sys.modules.setdefault("mmcv._ext", module)


stub_mmcv()  # at import: test modules import the packages while they are collected

if importlib.util.find_spec("hypothesis"):
    from hypothesis import settings

    # The same cases on every run: a failure that comes and goes would be nobody's.
    settings.register_profile("same", derandomize=True, deadline=None)
    settings.load_profile("same")


@pytest.fixture(autouse=True)
def _own_scope():
    """A Runner of MMEngine's leaves its default scope behind, where others would look their classes up."""
    yield
    if "mmengine.registry" in sys.modules:
        from mmengine.registry import DefaultScope

        DefaultScope._instance_dict.clear()
