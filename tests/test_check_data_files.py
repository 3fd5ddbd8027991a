"""check_data: files of every kind, whole data sets that are wrong, and settings that training has."""

# SPDX-License-Identifier: Apache-2.0
import os
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from test_check_data import blocks, check, config, found, write

import segfast
from segfast.check_data import check_data
from segfast.cli import main
from segfast.datasets.folder import list_files
from segfast.datasets.images import lossy_format
from segfast.errors import ConfigError, DataError, UserError
from segfast.registry import TRANSFORMS

UNCHANGED = [
    {"type": "LoadImageFromFile", "color_type": "unchanged"},
    {"type": "LoadAnnotations"},
    {"type": "PackSegInputs"},
]


def damaged_pages(path):
    """A TIFF whose second page lies behind the end of the file."""
    pages = [Image.new("RGB", (8, 4), (i, 0, 0)) for i in range(2)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    data = bytearray(path.read_bytes())
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    place = start + 2 + 12 * count
    data[place : place + 4] = struct.pack("<I", len(data) + 100)
    path.write_bytes(bytes(data))


def deep_rgb(path, width, height):
    """A PNG of three channels with 16 bits each."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + bytes(6 * width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_file_ends_the_scan(tmp_path, workers):
    write(tmp_path, [blocks(0, 1)] * 20)
    images = tmp_path / "images/train"
    deep = np.random.default_rng(0).integers(0, 60000, (4, 8)).astype(np.uint16)
    Image.fromarray(deep).save(images / "0.png")
    whole = (images / "0.png").read_bytes()
    (images / "0.png").write_bytes(whole[: len(whole) // 2])  # deep, and cut off
    (images / "1.png").unlink()
    damaged_pages(images / "1.tif")
    deep_rgb(images / "2.png", 8, 4)
    report = check_data(config(tmp_path, 2, ["train"]), num_workers=workers, quiet=True)
    assert report.datasets[0].num_images == 20
    assert found(report) == {"deep image": 1, "unreadable image": 1, "pages": 1, "cut to 8 bits": 1}


def test_max_pixels_is_the_configs_and_checked_once(tmp_path, monkeypatch):
    write(tmp_path, [blocks(0, 1)] * 20)
    cfg = config(tmp_path, 2, ["train"])
    monkeypatch.delenv("SEGFAST_MAX_PIXELS", raising=False)
    assert found(check({**cfg, "env_cfg": {"max_pixels": 5}}))["unreadable image"] == 20
    assert "SEGFAST_MAX_PIXELS" not in os.environ
    monkeypatch.setenv("SEGFAST_MAX_PIXELS", "1e9")
    with pytest.raises(ConfigError, match="SEGFAST_MAX_PIXELS: expected a number of pixels"):
        check_data(cfg, num_workers=2, quiet=True)
    assert os.environ["SEGFAST_MAX_PIXELS"] == "1e9"
    with pytest.raises(UserError, match="num_workers >= 0, got -1"):
        check_data(cfg, num_workers=-1)


def test_custom_imports_are_imported(tmp_path, monkeypatch):
    write(tmp_path, [blocks(0, 1)] * 2)
    (tmp_path / "own_loading_here.py").write_text(
        "from segfast.datasets import LoadImageFromFile\nfrom segfast.registry import TRANSFORMS\n"
        "@TRANSFORMS.register_module()\nclass OwnLoadingHere(LoadImageFromFile):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    steps = [{"type": "OwnLoadingHere"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    cfg = config(tmp_path, 2, ["train"], pipeline=steps)
    try:
        report = check({**cfg, "custom_imports": {"imports": ["own_loading_here"]}})
        assert found(report) == {}
        assert report.datasets[0].num_images == 2
    finally:
        TRANSFORMS._entries.pop("OwnLoadingHere", None)
        sys.modules.pop("own_loading_here", None)


class Loading(segfast.datasets.LoadImageFromFile):
    """A loader of one's own: samples are read instead of files."""


@pytest.mark.parametrize("own", [True, False])
def test_what_training_would_skip_is_listed(tmp_path, own):
    write(tmp_path, [blocks(0, 1)] * 4)
    (tmp_path / "images/train/1.png").write_bytes(b"")
    (tmp_path / "masks/train/2.png").write_bytes(b"x")
    load = Loading() if own else {"type": "LoadImageFromFile"}
    steps = [load, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    cfg = config(tmp_path, 2, ["train"], pipeline=steps, on_error="skip")
    files = [line for lines in check(cfg).datasets[0].problems.values() for line in lines]
    assert len(files) == 2
    assert any("images/train/1.png" in line for line in files)
    assert any("masks/train/2.png" in line for line in files)
    built = segfast.registry.DATASETS.build(cfg["train_dataloader"]["dataset"])
    report = check({**cfg, "train_dataloader": {"dataset": built}})
    assert report.num_problems == 2
    assert built.on_error == "skip"


def test_lossy_masks(tmp_path):
    write(tmp_path, [blocks(0, 1)] * 4)
    masks = tmp_path / "masks/train"
    for place, (ending, options) in enumerate(
        [("jpg", {}), ("webp", {}), ("webp", {"lossless": True})]
    ):
        path = masks / f"{place}.png"
        Image.open(path).save(masks / f"{place}.{ending}", **options)
        path.unlink()
    assert lossy_format(masks / "0.jpg") == "JPEG"
    assert lossy_format(masks / "1.webp") == "lossy WebP"
    assert lossy_format(masks / "2.webp") is None
    (masks / "1.webp").rename(masks / "1.png")
    (masks / "2.webp").unlink()
    Image.fromarray(blocks(0, 1)).save(masks / "2.png")
    report = check(config(tmp_path, 2, ["train"]))
    lines = report.datasets[0].problems["lossy mask"]
    assert len(lines) == 2
    assert lines[0].endswith("0.jpg: JPEG changes label values, save masks as PNG")
    (masks / "1.png").unlink()
    Image.fromarray(blocks(0, 1)).save(masks / "1.png")
    with pytest.warns(UserWarning, match=r"0\.jpg: JPEG changes label values near edges"):
        segfast.registry.DATASETS.build(config(tmp_path, 2)["train_dataloader"]["dataset"])
    Image.fromarray(blocks(0, 1)).save(masks / "0.png")
    (masks / "0.jpg").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segfast.registry.DATASETS.build(config(tmp_path, 2)["train_dataloader"]["dataset"])


def test_data_sets_without_masks_or_samples(tmp_path):
    write(tmp_path, [blocks(0, 1)] * 4)
    cfg = config(tmp_path, 2, ["train"], indices=0)
    assert "no sample" in check(cfg).datasets[0].problems["data set"][0]
    with pytest.raises(DataError, match="the data set has no sample"):
        segfast.registry.DATASETS.build(cfg["train_dataloader"]["dataset"])
    cfg = config(tmp_path, 2, ["train", "test"])
    for part in ("train", "test"):
        cfg[f"{part}_dataloader"]["dataset"]["data_prefix"] = {"img_path": "images/train"}
    report = check(cfg)
    assert "no masks" in report.datasets[0].problems["data set"][0]
    assert found(report, 1) == {}  # a test set may be what is to be segmented
    cfg.pop("test_dataloader")
    with pytest.raises(UserError, match=r"images/train/\d\.png: holds no labels .* to train on"):
        segfast.train(
            {**cfg, "train_cfg": {"max_iters": 1}, "quiet": True}, work_dir=tmp_path / "w"
        )
    for value in (5, True, [1], "a"):
        report = check({**cfg, "train_dataloader": {"dataset": value}})
        assert "expected a dict(type=...)" in report.datasets[0].problems["data set"][0]
    for wrong in (5, "a", {}, {"dataset": None}, []):
        with pytest.raises(ConfigError, match=r"^train_dataloader: expected "):
            check({**cfg, "train_dataloader": wrong})


def test_pictures_that_nothing_reads(tmp_path):
    write(tmp_path, [blocks(0, 1)] * 4)
    images = tmp_path / "images/train"
    for place, ending in enumerate(["webp", "gif", "ppm"]):
        Image.open(images / f"{place}.png").save(images / f"{place}.{ending}")
        (images / f"{place}.png").unlink()
    (images / "3.png").rename(images / "3.HEIC")
    (images / "notes.txt").write_text("x")
    report = check(config(tmp_path, 2, ["train"]))
    assert report.datasets[0].num_images == 3
    assert found(report) == {"picture left out": 1, "mask without image": 1}
    assert "3.HEIC: not read, img_suffix is .jpg," in str(report)
    report = check(config(tmp_path, 2, ["train"], img_suffix=".webp"))
    assert found(report) == {"picture of another ending": 3, "mask without image": 3}
    assert report.num_problems == 0


def test_cameras_orientation(tmp_path):
    write(tmp_path, [blocks(0, 1)] * 2)
    exif = Image.Exif()
    exif[0x0112] = 6
    for place in range(2):
        path = tmp_path / f"images/train/{place}.png"
        Image.open(path).save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()
    report = check(config(tmp_path, 2, ["train"]))
    assert found(report) == {"size differs": 2}
    assert "the image's EXIF orientation is 6: color_type='color' and 'grayscale' turn it" in str(
        report
    )
    cfg = config(tmp_path, 2, ["train"], pipeline=UNCHANGED)
    assert found(check(cfg)) == {}
    dataset = segfast.registry.DATASETS.build(cfg["train_dataloader"]["dataset"])
    assert dataset[0]["inputs"].shape == (3, 4, 8)
    with pytest.raises(DataError, match="both must have one size"):
        segfast.registry.DATASETS.build(
            config(tmp_path, 2, ["train"])["train_dataloader"]["dataset"]
        )[0]


def test_the_number_of_classes_is_the_models(tmp_path):
    write(tmp_path, [blocks(0, 1)] * 2)
    cfg = config(tmp_path, 2, ["train"])
    report = check(cfg, {"model.num_classes": 5})
    assert "2 classes in the data set's metainfo, but the model has num_classes=5" in str(report)
    assert found(report) == {"number of classes": 1}


def test_a_missing_mask_says_what_was_looked_for(tmp_path):
    write(tmp_path, [blocks(0, 1)] * 3)
    (tmp_path / "masks/train/1.png").rename(tmp_path / "masks/train/1_label.png")
    report = check(config(tmp_path, 2, ["train"], seg_map_suffix=".png"))
    (line,) = report.datasets[0].problems["missing mask"]
    assert line.endswith("1.png: no mask for this image (looked for .png: see seg_map_suffix)")


def test_statistics_are_those_of_all_parts(tmp_path):
    write(tmp_path, [blocks(0, 0)] * 2, image=np.zeros((4, 8, 3), np.uint8))
    write(tmp_path, [blocks(1, 1)] * 2, "val", image=np.full((4, 8, 3), 200, np.uint8))
    cfg = config(tmp_path, 2)
    parts = [cfg.pop(f"{part}_dataloader")["dataset"] for part in ("train", "val")]
    both = {"type": "torch.utils.data.ConcatDataset", "datasets": parts}
    report = check({**cfg, "train_dataloader": {"dataset": both}})
    assert report.num_problems == 0  # each part lacks a class that the other has
    measured = report.statistics["model.data_preprocessor"]
    assert measured["mean"] == [100.0] * 3
    assert measured["std"] == [100.0] * 3


def test_links_in_circles(tmp_path):
    write(tmp_path, [blocks(0, 1)] * 3)
    for kind in ("images", "masks"):
        folder = tmp_path / kind / "train"
        for name in ("l1", "l2", "l3"):
            (folder / name).symlink_to(".")
        (folder / "up").symlink_to(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(blocks(0, 1)).save(tmp_path / "elsewhere/9.png")
    for kind in ("images", "masks"):
        (tmp_path / kind / "train/set").symlink_to(tmp_path / "elsewhere")
    assert list(list_files(str(tmp_path / "images/train"), ".png", "image")) == [
        "0", "1", "2", "set/9",
    ]  # fmt: skip


def test_names_that_a_screen_cannot_show(tmp_path, capsys):
    write(tmp_path, [blocks(0, 1)])
    names = [b"\xff\xfe.png", b"a\nb\t.png", "\x1b[31mred \u00e9.png".encode()]
    for name in names:
        for kind in ("images", "masks"):
            path = os.fsencode(tmp_path / kind / "train") + b"/" + name
            with open(path, "wb") as file:
                file.write(
                    b"x" if kind == "images" else (tmp_path / "masks/train/0.png").read_bytes()
                )
    report = check(config(tmp_path, 2, ["train"]))
    lines = list(report.lines())
    assert len(lines) == 3
    assert all(line.count("\t") == 2 and "\n" not in line for line in lines)
    text = "".join(lines)
    assert r"\udcff\udcfe.png" in text
    assert r"a\nb\t.png" in text
    assert "\\x1b[31mred \u00e9.png" in text
    file = tmp_path / "c.yaml"
    file.write_text(segfast.config.dump_config(config(tmp_path, 2, ["train"])))
    out = tmp_path / "list.tsv"
    assert main(["check-data", str(file), "--out", str(out), "--workers", "0"]) == 2
    assert len(out.read_text("utf-8").splitlines()) == 3
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert r"\udcff\udcfe.png" in shown
    for wrong in (str(tmp_path), str(tmp_path / "no/x.tsv"), "a\0b"):
        assert main(["check-data", str(file), "--out", wrong, "--workers", "0"]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()[-1]) > 20
