"""Classes of a data pipeline and its pictures take upstream's arguments, at upstream's positions, with its defaults."""

# SPDX-License-Identifier: Apache-2.0
import inspect

import pytest

pytest.importorskip("mmseg")

import mmcv.transforms
import mmengine.dataset
import mmseg.datasets
import mmseg.datasets.transforms
import mmseg.engine.hooks
import mmseg.visualization

import segfast

PAIRS = {
    "BaseSegDataset": mmseg.datasets.BaseSegDataset,
    "CityscapesDataset": mmseg.datasets.CityscapesDataset,
    "ADE20KDataset": mmseg.datasets.ADE20KDataset,
    "PascalVOCDataset": mmseg.datasets.PascalVOCDataset,
    "ConcatDataset": mmengine.dataset.ConcatDataset,
    "RepeatDataset": mmengine.dataset.RepeatDataset,
    "DefaultSampler": mmengine.dataset.DefaultSampler,
    "InfiniteSampler": mmengine.dataset.InfiniteSampler,
    "LoadImageFromFile": mmcv.transforms.LoadImageFromFile,
    "LoadImageFromNDArray": mmseg.datasets.transforms.LoadImageFromNDArray,
    "LoadAnnotations": mmseg.datasets.transforms.LoadAnnotations,
    "Resize": mmseg.datasets.transforms.Resize,
    "RandomResize": mmcv.transforms.RandomResize,
    "RandomChoiceResize": mmcv.transforms.RandomChoiceResize,
    "ResizeToMultiple": mmseg.datasets.transforms.ResizeToMultiple,
    "RandomCrop": mmseg.datasets.transforms.RandomCrop,
    "RandomFlip": mmseg.datasets.transforms.RandomFlip,
    "Pad": mmcv.transforms.Pad,
    "PhotoMetricDistortion": mmseg.datasets.transforms.PhotoMetricDistortion,
    "TestTimeAug": mmcv.transforms.TestTimeAug,
    "PackSegInputs": mmseg.datasets.transforms.PackSegInputs,
    "SegLocalVisualizer": mmseg.visualization.SegLocalVisualizer,
    "SegVisualizationHook": mmseg.engine.hooks.SegVisualizationHook,
}
# Defaults that differ on purpose; docs/architecture.md says why, or the meaning is the same.
OTHER_DEFAULTS = {
    "BaseSegDataset": {"img_suffix", "seg_map_suffix", "data_prefix", "pipeline"},
    "RandomCrop": {"ignore_index"},
    "RandomFlip": {"prob", "direction"},
    "Pad": {"pad_val"},
    "SegVisualizationHook": {"draw"},
}


def parameters(function):
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(function).parameters.values()
    return {p.name: p for p in found if p.kind in kinds and p.name != "self"}


def compare(theirs, ours, other_defaults=()):
    theirs, ours = parameters(theirs), parameters(ours)
    positional = [n for n, p in theirs.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert list(ours)[: len(positional)] == positional
    assert set(theirs) <= set(ours)
    for name, parameter in theirs.items():
        if name not in other_defaults:
            assert ours[name].default == parameter.default, name


@pytest.mark.parametrize("name", PAIRS)
def test_constructors(name):
    compare(PAIRS[name].__init__, getattr(segfast, name).__init__, OTHER_DEFAULTS.get(name, ()))


def test_add_datasample():
    theirs = mmseg.visualization.SegLocalVisualizer.add_datasample
    compare(theirs, segfast.SegLocalVisualizer.add_datasample)
