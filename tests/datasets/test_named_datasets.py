"""CityscapesDataset, ADE20KDataset, PascalVOCDataset: suffixes, label rules, names for the visualizer."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

from segfast.datasets import ADE20KDataset, CityscapesDataset, PascalVOCDataset
from segfast.errors import ConfigError
from segfast.registry import DATASETS
from segfast.visualization import SegLocalVisualizer


@pytest.mark.parametrize(
    ("kind", "count", "aliases"),
    [
        (CityscapesDataset, 19, ("cityscapes", "CityscapesDataset")),
        (ADE20KDataset, 150, ("ade", "ade20k", "ADE20KDataset")),
        (PascalVOCDataset, 21, ("voc", "pascal_voc", "voc12", "voc12aug")),
    ],
)
def test_tables(kind, count, aliases):
    meta = kind.METAINFO
    assert len(meta["classes"]) == len(set(meta["classes"])) == count
    assert len(meta["palette"]) == count
    assert all(len(color) == 3 and 0 <= min(color) <= max(color) < 256 for color in meta["palette"])
    for alias in aliases:
        assert SegLocalVisualizer(dataset_name=alias).dataset_meta["classes"] == list(
            meta["classes"]
        )


def test_cityscapes(tmp_path):
    for folder, ending in (
        ("img", "leftImg8bit"),
        ("gt", "gtFine_labelTrainIds"),
        ("gt", "gtFine_color"),
    ):
        path = tmp_path / folder / "ulm" / f"ulm_000000_000019_{ending}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.array([[0, 18, 255]], np.uint8)
        image = Image.fromarray(pixels)
        (image.convert("RGB") if folder == "img" else image).save(path)
    data = CityscapesDataset(
        data_root=tmp_path, data_prefix={"img_path": "img", "seg_map_path": "gt"}
    )
    assert len(data) == 1
    sample = data[0]["data_samples"]
    assert sample.gt_sem_seg.data.tolist() == [[[0, 18, 255]]]
    assert sample.seg_map_path.endswith("labelTrainIds.png")


def test_ade(make_folder):
    folder = make_folder({"a": np.array([[0, 1, 150]], np.uint8)})
    assert ADE20KDataset(data_root=folder)[0]["data_samples"].gt_sem_seg.data.tolist() == [
        [[255, 0, 149]]
    ]
    assert ADE20KDataset(data_root=folder).metainfo["reduce_zero_label"] is True


def test_voc_needs_its_split(make_folder):
    labels = np.array([[0, 20, 255]], np.uint8)
    folder = make_folder({"a": labels, "b": labels, "c": labels})
    (folder / "masks" / "b.png").unlink()
    (folder / "train.txt").write_text("c\na\n")
    colours = Image.fromarray(labels)
    colours.putpalette(np.array(PascalVOCDataset.METAINFO["palette"], np.uint8).tobytes())
    colours.save(folder / "masks" / "a.png")  # as they are published
    data = PascalVOCDataset("train.txt", data_root=folder)
    for index in range(2):
        assert data[index]["data_samples"].gt_sem_seg.data.tolist() == [[[0, 20, 255]]]
    with pytest.raises(ConfigError, match=r"train\.ann_file: missing"):
        DATASETS.build({"type": "PascalVOCDataset", "data_root": folder}, path="train")
