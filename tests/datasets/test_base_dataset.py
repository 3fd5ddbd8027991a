"""BaseSegDataset: pairing, metainfo, label maps, and one clear line for each wrong folder."""

# SPDX-License-Identifier: Apache-2.0
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from segfast.datasets import BaseSegDataset, BaseTransform, SampleKey
from segfast.errors import ConfigError, DataError
from segfast.registry import DATASETS

ABC = {"classes": ["a", "b", "c"]}


def dataset(folder, metainfo=ABC, **kwargs):
    return BaseSegDataset(data_root=folder, metainfo=metainfo, **kwargs)


def stems(data):
    return [info["img_path"].rsplit("images/")[1].rsplit(".", 1)[0] for info in data.data_list]


def problem(folder, **kwargs):
    with pytest.raises(DataError) as caught:
        dataset(folder, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_pairs_by_stem_in_sub_folders_and_any_suffix(make_folder, mask):
    folder = make_folder({"b": mask, "sub/c": mask})
    make_folder({"a": mask}, image_suffix=".PNG", mask_suffix=".bmp")
    (folder / "images" / ".DS_Store").write_bytes(b"x")
    (folder / "images" / "notes.txt").write_text("x")
    data = dataset(folder)
    assert len(data) == 3
    assert stems(data) == ["a", "b", "sub/c"]
    info = data.get_data_info(2)
    assert info["seg_map_path"] == str(folder / "masks" / "sub" / "c.png")
    assert info["sample_idx"] == 2
    assert info["seg_fields"] == []
    assert data.get_data_info(-1)["sample_idx"] == 2


def test_one_folder_for_both_with_suffixes(tmp_path, mask):
    for stem in "ab":
        Image.fromarray(mask).convert("RGB").save(tmp_path / f"{stem}_img.jpg")
        Image.fromarray(mask).save(tmp_path / f"{stem}_gt.png")
    prefix = {"img_path": "", "seg_map_path": ""}
    data = dataset(tmp_path, img_suffix="_img.jpg", seg_map_suffix="_gt.png", data_prefix=prefix)
    assert [i["seg_map_path"] for i in data.data_list] == [f"{tmp_path}/{s}_gt.png" for s in "ab"]


def test_default_pipeline_loads_and_packs(make_folder, mask):
    sample = dataset(make_folder({"a": mask}))[0]
    assert sample["inputs"].shape == (3, 6, 8)
    np.testing.assert_array_equal(sample["data_samples"].gt_sem_seg.data[0], mask)
    assert sample["data_samples"].ori_shape == (6, 8)


def test_images_without_masks(make_folder, mask):
    folder = make_folder({"a": mask})
    data = dataset(folder, data_prefix={"img_path": "images"})
    assert "gt_sem_seg" not in data[0]["data_samples"]
    steps = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
    data = dataset(folder, data_prefix={"img_path": "images"}, pipeline=steps)
    with pytest.raises(DataError, match=r"a.jpg: LoadAnnotations needs a mask.*seg_map_path"):
        data[0]


def test_ann_file_keeps_its_order(make_folder, mask):
    folder = make_folder({"a": mask, "b": mask, "c": mask})
    (folder / "train.txt").write_text("c\n\na.jpg\n")
    assert stems(dataset(folder, ann_file="train.txt")) == ["c", "a"]
    (folder / "train.txt").write_text("c\nzzz\n")
    text = problem(folder, ann_file="train.txt")
    assert text.startswith(f"{folder}/train.txt: line 2 names 'zzz', but there is no such image")
    assert "no such file; ann_file lists" in problem(folder, ann_file="other.txt")


def test_indices(make_folder, mask):
    folder = make_folder({s: mask for s in "abcd"})
    assert stems(dataset(folder, indices=2)) == ["a", "b"]
    assert stems(dataset(folder, indices=[3, 0])) == ["d", "a"]
    with pytest.raises(ConfigError, match="indices: 9 is out of range"):
        dataset(folder, indices=[9])


def test_missing_folder(make_folder, mask):
    folder = make_folder({"a": mask})
    assert problem(folder, data_prefix={"img_path": "image"}) == (
        f"{folder}/image: no such folder for the images; {folder} has no 'image' "
        "(did you mean images?): check data_root and data_prefix"
    )
    assert problem(folder / "nope" / "deep").startswith(f"{folder}/nope/deep/images: no such")


def test_empty_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    assert problem(tmp_path).startswith(f"{tmp_path}/images: no images in this folder (looked for")
    assert "it is empty" in problem(tmp_path)
    (tmp_path / "images" / "a.tga").write_bytes(b"x")
    assert "1 other files such as a.tga): set img_suffix" in problem(tmp_path)


def test_images_without_a_mask_are_counted(make_folder, mask):
    folder = make_folder({"a": mask, "b": mask, "c": mask})
    (folder / "masks" / "b.png").unlink()
    text = problem(folder)
    assert text.startswith(f"{folder}/images/b.jpg: no mask for this image in {folder}/masks")
    assert "(1 of 3 images have none; looked for b.jpg or .jpeg" in text
    text = problem(folder, seg_map_suffix="_gt.png")
    assert "(3 of 3 images have none; looked for a_gt.png)" in text
    assert "its files are named like a.png: set seg_map_suffix" in text


def test_two_images_of_one_stem(make_folder, mask):
    folder = make_folder({"a": mask})
    make_folder({"a": mask}, image_suffix=".png")
    assert "a second image named 'a' beside a.jpg; say which ending counts with img_suffix" in (
        problem(folder)
    )


def test_mask_of_another_size(make_folder, mask):
    folder = make_folder({"a": mask})
    Image.fromarray(mask[:4]).save(folder / "masks" / "a.png")
    assert problem(folder) == (
        f"{folder}/masks/a.png: mask is 8x4 but its image {folder}/images/a.jpg is 8x6 "
        "(width x height); both must have one size"
    )


def test_masks_of_0_and_255_propose_the_label_map(make_folder, mask):
    folder = make_folder({s: np.where(mask == 1, 255, 0).astype(np.uint8) for s in "ab"})
    two = {"classes": ["ground", "horse"]}
    text = problem(folder, metainfo=two)
    assert text.startswith(f"{folder}/masks/a.png: masks hold only the values 0 and 255")
    assert "set label_map={0: 0, 255: 1}" in text
    data = dataset(folder, metainfo=two, label_map={0: 0, 255: 1})
    np.testing.assert_array_equal(data[0]["data_samples"].gt_sem_seg.data[0], mask == 1)
    dataset(folder, metainfo=two, label_map={0: 0, 1: 1, 255: 255})  # the way out works


def test_0_1_255_is_not_mistaken(make_folder, mask):
    void = np.where(mask == 1, 255, 0).astype(np.uint8)
    folder = make_folder({"a": void, "b": (mask == 1).astype(np.uint8)})
    assert len(dataset(folder, metainfo={"classes": ["x", "y"]})) == 2


def test_a_wrong_label_is_found_at_once_or_when_loaded(make_folder, mask):
    masks = {f"{k:02d}": mask for k in range(40)}
    folder = make_folder(masks)
    wrong = np.where(mask == 2, 200, mask).astype(np.uint8)
    Image.fromarray(wrong).save(folder / "masks" / "01.png")
    data = dataset(folder)  # 01 is not among the few that are checked
    with pytest.raises(DataError, match=r"01\.png: mask holds the label 200, but there are 3"):
        data[1]
    Image.fromarray(wrong).save(folder / "masks" / "00.png")
    assert "00.png: mask holds the label 200" in problem(folder)


def test_corrupt_image_names_the_file(make_folder, mask):
    big = np.zeros((64, 64), np.uint8)
    folder = make_folder({"a": big, "b": big})
    path = folder / "images" / "a.jpg"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError) as caught:
        dataset(folder)[0]
    assert str(caught.value).startswith(f"{path}: corrupt or truncated, cannot be decoded")
    path.write_bytes(b"no image")
    assert problem(folder).startswith(f"{path}: corrupt or truncated, cannot be decoded")


def test_metainfo_is_a_copy_with_a_palette(make_folder, mask):
    data = dataset(make_folder({"a": mask}))
    meta = data.metainfo
    assert meta["classes"] == ["a", "b", "c"]
    assert meta["palette"] == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    meta["palette"].clear()
    assert len(data.metainfo["palette"]) == 3


def test_classes_from_a_file_and_wrong_metainfo(make_folder, mask):
    folder = make_folder({"a": mask})
    (folder / "names.txt").write_text("x\ny\nz\n")
    data = dataset(folder, metainfo={"classes": str(folder / "names.txt")})
    assert data.metainfo["classes"] == ["x", "y", "z"]
    assert "no such file" in problem(folder, metainfo={"classes": "names.csv"})
    with pytest.raises(ConfigError, match=r"metainfo\.palette: expected 3 colours"):
        dataset(folder, metainfo={**ABC, "palette": [[0, 0, 0]]})
    with pytest.raises(ConfigError, match=r"metainfo\.classes: expected a list of names"):
        dataset(folder, metainfo={"classes": [1, 2]})


class Declared(BaseSegDataset):
    METAINFO: ClassVar = dict(classes=("a", "b", "c"), palette=[[1, 1, 1], [2, 2, 2], [3, 3, 3]])


def test_some_of_the_declared_classes(make_folder, mask):
    folder = make_folder({"a": mask})
    data = Declared(data_root=folder, metainfo={"classes": ["c", "a"]})
    assert data.metainfo["label_map"] == {0: 1, 1: 255, 2: 0}
    assert data.metainfo["palette"] == [[3, 3, 3], [1, 1, 1]]
    labels = data[0]["data_samples"].gt_sem_seg.data[0].numpy()
    np.testing.assert_array_equal(labels, np.array([1, 255, 0])[mask])
    assert Declared(data_root=folder).label_map is None
    with pytest.raises(ConfigError, match="no class 'd' in this data set"):
        Declared(data_root=folder, metainfo={"classes": ["d"]})


def test_wrong_arguments_name_the_key(make_folder, mask):
    folder = make_folder({"a": mask})
    cfg = dict(type="BaseSegDataset", data_root=folder, metainfo=ABC)
    for change, text in [
        (dict(data_prefix={"img_pth": "x"}), r"val\.data_prefix\.img_pth: .*did you mean img_path"),
        (dict(label_map={0: 0, 1: 5}), r"val\.label_map: 1 is mapped to 5, but there are 3"),
        (dict(pipeline=[dict(type="LoadImage")]), r"val\.pipeline\.0\.type: unknown transform"),
        (dict(lable_map={}), r"val\.lable_map: .*did you mean label_map"),
    ]:
        with pytest.raises(ConfigError, match=text):
            DATASETS.build({**cfg, **change}, path="val")


class Reject(BaseTransform):
    def __init__(self, stem):
        self.stem = stem

    def transform(self, results):
        return None if f"{self.stem}.jpg" in results["img_path"] else results


def test_rejected_images_are_replaced_in_training_only(make_folder, mask):
    folder = make_folder({"a": mask, "b": mask})
    data = dataset(folder, pipeline=[Reject("a")])
    assert data[0]["img_path"].endswith("b.jpg")
    with pytest.raises(DataError, match="returned nothing"):
        dataset(folder, pipeline=[Reject("a")], test_mode=True)[0]
    with pytest.raises(DataError, match="rejected 4 images in a row"):
        dataset(folder, pipeline=[lambda results: None], max_refetch=3)[0]


def test_the_random_stream_belongs_to_the_key(make_folder, mask):
    data = dataset(make_folder({"a": mask, "b": mask}), pipeline=[])
    draw = lambda key: data[key]["rng"].random()  # noqa: E731
    assert draw(SampleKey(0, epoch=1, seed=2)) == draw(SampleKey(0, epoch=1, seed=2))
    keys = [SampleKey(0, 0, 0), SampleKey(1, 0, 0), SampleKey(0, 1, 0), SampleKey(0, 0, 1)]
    assert len({draw(key) for key in keys}) == 4
    assert draw(0) != draw(0)
