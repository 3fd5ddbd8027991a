"""Arguments that MMEngine's and MMSegmentation's configs state: taken, kept, and refused where they cannot be met."""

# SPDX-License-Identifier: Apache-2.0
import pytest
from PIL import Image

from segfast.datasets import (
    BaseSegDataset,
    LoadAnnotations,
    LoadImageFromFile,
    LoadImageFromNDArray,
)
from segfast.datasets.skips import take_skips
from segfast.errors import ConfigError, DataError
from segfast.registry import DATASETS, TRANSFORMS

ABC = {"classes": ["a", "b", "c"]}


@pytest.fixture
def folder(make_folder, mask):
    return make_folder({stem: mask for stem in "abcd"})


def stems(data):
    return [info["img_path"].rsplit("/", 1)[1][0] for info in data.data_list]


@pytest.mark.parametrize("loader", [LoadImageFromFile, LoadImageFromNDArray])
def test_loaders_take_what_configs_state(loader):
    step = loader(True, "grayscale", "pillow", None, True, backend_args={"backend": "local"})
    assert (step.to_float32, step.color_type, step.ignore_empty) == (True, "grayscale", True)
    assert (step.imdecode_backend, step.backend_args) == ("pillow", {"backend": "local"})
    assert loader(file_client_args={"backend": "disk"}).file_client_args == {"backend": "disk"}
    assert "imdecode_backend='tifffile'" in repr(loader(imdecode_backend="tifffile"))
    with pytest.raises(ConfigError, match="file_client_args: is the older name"):
        loader(file_client_args={}, backend_args={})


def test_annotations_take_what_configs_state():
    step = LoadAnnotations(True, {"backend": "local"}, "cv2")
    assert (step.reduce_zero_label, step.imdecode_backend) == (True, "cv2")
    assert step.backend_args == {"backend": "local"}
    assert LoadAnnotations().backend_args is None


@pytest.mark.parametrize("name", ["LoadImageFromFile", "LoadImageFromNDArray", "LoadAnnotations"])
def test_another_storage_or_decoder_is_refused(name):
    for change, text in [
        ({"backend_args": {"backend": "petrel"}}, r"p\.backend_args\.backend: expected 'local', .*mount"),
        ({"backend_args": "s3"}, r"p\.backend_args: expected None or dict\(backend='local'\), got 's3'"),
        ({"imdecode_backend": "magick"}, r"p\.imdecode_backend: expected one of cv2, pillow"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=text):
            TRANSFORMS.build({"type": name, **change}, path="p")


def test_an_ignored_file_rejects_the_sample_and_is_counted(folder):
    (folder / "images" / "b.jpg").write_bytes(b"no image")
    path = str(folder / "images" / "b.jpg")
    with pytest.raises(DataError):
        LoadImageFromFile()({"img_path": path})
    take_skips()
    assert LoadImageFromFile(ignore_empty=True)({"img_path": path}) is None
    (note,) = take_skips()
    assert note.startswith(f"{path}: corrupt")


def test_the_dataset_takes_what_configs_state(folder):
    cfg = dict(
        type="BaseSegDataset", data_root=folder, metainfo=ABC, filter_cfg={"min_size": 3},
        serialize_data=True, lazy_init=False, max_refetch=7, backend_args={"backend": "local"},
    )  # fmt: skip
    data = DATASETS.build(cfg)
    assert (data.filter_cfg, data.serialize_data) == ({"min_size": 3}, True)
    assert (data.max_refetch, data.backend_args) == (7, {"backend": "local"})
    with pytest.raises(ConfigError, match=r"val\.backend_args\.backend: expected 'local', got 's3"):
        DATASETS.build({**cfg, "backend_args": {"backend": "s3"}}, path="val")


def test_positions_are_upstreams(folder):
    prefix = {"img_path": "images", "seg_map_path": "masks"}
    data = BaseSegDataset(
        "", ".jpg", ".png", ABC, folder, prefix, None, 2, True, [], True, True, 5, 254, True, None
    )
    assert (data.test_mode, data.max_refetch, data.ignore_index) == (True, 5, 254)
    assert data.reduce_zero_label
    assert data.label_map is None


def test_a_lazy_dataset_lists_its_files_when_first_used(folder):
    lazy = BaseSegDataset(data_root=folder / "later", metainfo=ABC, lazy_init=True)
    assert lazy.metainfo["classes"] == ["a", "b", "c"]
    for _ in range(2):
        with pytest.raises(DataError, match="no such folder"):
            len(lazy)
    (folder / "later").symlink_to(folder)
    assert len(lazy) == 4
    (folder / "images" / "d.jpg").unlink()
    lazy.full_init()  # a second time does nothing
    assert len(lazy) == 4
    assert BaseSegDataset(data_root=folder, metainfo=ABC, lazy_init=True)[0]["inputs"].ndim == 3


def test_a_wrong_mask_in_a_lazy_dataset_stays_an_error(folder, mask):
    Image.fromarray(mask + 7).save(folder / "masks" / "a.png")
    lazy = BaseSegDataset(data_root=folder, metainfo=ABC, lazy_init=True)
    for _ in range(2):
        with pytest.raises(DataError, match="holds the label"):
            lazy.full_init()


class Filtered(BaseSegDataset):
    def filter_data(self):
        return [
            info for info in self.data_list if self.filter_cfg["without"] not in info["img_path"]
        ]


def test_a_subclass_filters_before_indices_choose(folder):
    data = Filtered(data_root=folder, metainfo=ABC, filter_cfg={"without": "a.jpg"}, indices=2)
    assert stems(data) == ["b", "c"]


def test_the_last_n(folder):
    assert stems(BaseSegDataset(data_root=folder, metainfo=ABC, indices=-2)) == ["c", "d"]
    assert stems(BaseSegDataset(data_root=folder, metainfo=ABC, indices=-9)) == list("abcd")
    assert stems(BaseSegDataset(data_root=folder, metainfo=ABC, indices=9)) == list("abcd")


def test_further_prefixes_are_kept(folder):
    prefix = {"img_path": "images", "img_path2": "later", "edges": folder / "e", "none": None}
    data = BaseSegDataset(data_root=folder, metainfo=ABC, data_prefix=prefix)
    assert data.data_prefix["img_path2"] == str(folder / "later")
    assert data.data_prefix["edges"] == str(folder / "e")
    assert data.data_prefix["none"] is None
    assert data.data_prefix["seg_map_path"] is None
    for wrong, text in [
        ({"img_path": "images", "seg_map": "masks"}, r"seg_map: no such key \(did you mean seg_map"),
        ({"img_path": 3}, "img_path: expected a path, got 3"),
        ({"seg_map_path": "masks"}, "img_path: missing, it names the folder"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=rf"data_prefix\.{text}"):
            BaseSegDataset(data_root=folder, metainfo=ABC, data_prefix=wrong)


def test_a_test_needs_classes(folder):
    with pytest.raises(AssertionError, match="`classes` should be specified when testing"):
        BaseSegDataset(data_root=folder, test_mode=True, lazy_init=True)
    cfg = dict(type="BaseSegDataset", data_root=folder, test_mode=True)
    with pytest.raises(ConfigError, match=r"test\.dataset: BaseSegDataset: .*`classes` should"):
        DATASETS.build(cfg, path="test.dataset")


def test_classes_stay_a_list_or_a_tuple(folder):
    for classes in (["x", "y", "z"], ("x", "y", "z")):
        data = BaseSegDataset(data_root=folder, metainfo={"classes": classes})
        assert data.metainfo["classes"] == classes
