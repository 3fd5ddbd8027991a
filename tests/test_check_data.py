"""check_data: every fault is found, and what it proposes mends the data."""

# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

import segfast
from segfast.check_data import check_data
from segfast.cli import main
from segfast.config import parse_override
from segfast.datasets.labels import LabelRule
from segfast.datasets.remedies import class_weights, mend_colors, mend_values
from segfast.errors import UserError

VOC = [[0, 0, 0], [128, 0, 0], [0, 128, 0]]


def write(root, masks, part="train", mode=None, image=None):
    """Images and masks: each mask an array (H, W) or (H, W, 3)."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind / part).mkdir(parents=True, exist_ok=True)
    for i, mask in enumerate(masks):
        mask = np.asarray(mask)
        pixels = rng.integers(0, 256, (*mask.shape[:2], 3)).astype(np.uint8)
        Image.fromarray(pixels if image is None else image).save(root / f"images/{part}/{i}.png")
        picture = Image.fromarray(mask)
        (picture.convert(mode) if mode else picture).save(root / f"masks/{part}/{i}.png")


def config(root, num_classes=3, parts=("train", "val"), **dataset):
    def loader(part):
        prefix = {"img_path": f"images/{part}", "seg_map_path": f"masks/{part}"}
        names = [f"c{k}" for k in range(num_classes)]
        plain = {"type": "BaseSegDataset", "data_root": str(root), "data_prefix": prefix}
        return {"batch_size": 2, "dataset": {**plain, "metainfo": {"classes": names}, **dataset}}

    net = {"type": "SegNetS", "num_classes": num_classes, "width": 4}
    return {
        "model": {"type": "Segmentor", "net": net, "num_classes": num_classes},
        **{f"{part}_dataloader": loader(part) for part in parts},
        "device": "cpu",
    }


def blocks(*values, dtype=np.uint8):
    """A mask with one 4 x 4 block of each value."""
    return np.repeat(np.repeat(np.array([values], dtype=dtype), 4, 0), 4, 1)


def check(cfg, overrides=None, **options):
    return check_data(cfg, overrides=overrides, num_workers=0, quiet=True, **options)


def found(report, place=0):
    return {kind: len(lines) for kind, lines in report.datasets[place].problems.items()}


def test_good_data_has_no_problem_and_its_statistics_are_right(tmp_path):
    for part in ("train", "val"):
        write(tmp_path, [blocks(0, 1, 2, 0)] * 3, part)
    report = check(config(tmp_path))
    assert report.num_problems == 0
    assert report.proposals == {}
    assert report.datasets[0].classes_seen() == [(96, 3, 192), (48, 3, 192), (48, 3, 192)]
    assert report.statistics["model.loss"]["class_weight"] == [0.5, 1.0, 1.0]
    images = np.stack(
        [np.asarray(Image.open(tmp_path / f"images/train/{i}.png")) for i in range(3)]
    )
    measured = report.statistics["model.data_preprocessor"]
    flat = images.reshape(-1, 3).astype(float)
    np.testing.assert_allclose(measured["mean"], flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(measured["std"], flat.std(0), rtol=1e-5)
    assert measured["bgr_to_rgb"] is True
    trained = segfast.train(
        {**config(tmp_path), "train_cfg": {"max_iters": 1}, "quiet": True},
        overrides=report.statistics,
        work_dir=tmp_path / "run",
    )
    assert np.isfinite(next(iter(trained.metrics.values())))


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_files_are_all_found(tmp_path, workers):
    write(tmp_path, [blocks(0, 1, 2, 0)] * 20)
    whole = (tmp_path / "images/train/3.png").read_bytes()
    (tmp_path / "images/train/3.png").write_bytes(whole[: len(whole) - 40])
    (tmp_path / "images/train/4.png").write_bytes(b"")
    (tmp_path / "masks/train/5.png").write_bytes(b"no image")
    (tmp_path / "masks/train/6.png").unlink()
    (tmp_path / "images/train/7.png").unlink()
    Image.fromarray(blocks(0, 1)).save(tmp_path / "masks/train/8.png")
    Image.fromarray(blocks(0, 0, 0, 77)).save(tmp_path / "masks/train/9.png")
    Image.new("RGBA", (16, 4)).save(tmp_path / "images/train/10.png")
    report = check_data(config(tmp_path, parts=["train"]), num_workers=workers, quiet=True)
    assert found(report) == {
        "missing mask": 1, "mask without image": 1, "unreadable image": 2, "unreadable mask": 1,
        "size differs": 1, "label out of range": 1, "channels": 1,
    }  # fmt: skip
    assert report.num_problems == 6
    lines = list(report.lines())
    for i, kind in ((3, "unreadable image"), (4, "unreadable image"), (5, "unreadable mask")):
        (line,) = [line for line in lines if f"/{i}.png" in line]
        assert line.startswith(f"train_dataloader.dataset\t{kind}\t")
    assert any("holds the value 77 (16 pixels)" in line for line in lines)
    assert any("10.png: 4 channels, most images have 3" in line for line in lines)


CASES = {
    "void beyond the classes": ([blocks(0, 1, 2, 3)], 3, {"label_map": {0: 0, 1: 1, 2: 2, 3: 255}}),
    "0 and 255": ([blocks(0, 255)], 2, {"label_map": {0: 0, 255: 1}}),
    "from 1": ([blocks(1, 2, 3)], 3, {"reduce_zero_label": True}),
    "spread": ([blocks(0, 100, 200)], 3, {"label_map": {0: 0, 100: 1, 200: 2}}),
    "colours of the palette": ([np.array([[VOC[2], VOC[0]]] * 4, np.uint8)], 3, {"mask_colors": VOC}),
    "colours beyond": (
        [np.array([[VOC[2], VOC[0], VOC[1], [9, 9, 9]]] * 4, np.uint8)],
        3,
        {"mask_colors": [*VOC, [9, 9, 9]], "label_map": {0: 0, 1: 1, 2: 2, 3: 255}},
    ),
    "grey as colour": (
        [np.repeat(blocks(0, 2, 1)[..., None], 3, 2)],
        3,
        {"mask_colors": [[0, 0, 0], [1, 1, 1], [2, 2, 2]]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_proposed_mends_it(tmp_path, name):
    masks, num_classes, expected = CASES[name]
    for part in ("train", "val"):
        write(tmp_path, masks, part)
    names = [f"c{k}" for k in range(num_classes)]
    palette = {"palette": VOC} if "mask_colors" in expected and "grey" not in name else {}
    cfg = config(tmp_path, num_classes, metainfo={"classes": names, **palette})
    report = check(cfg)
    assert report.num_problems > 0
    for part in ("train", "val"):
        own = {k.split(".")[-1]: v for k, v in report.proposals.items() if k.startswith(part)}
        assert own == expected
    again = check(cfg, report.proposals)
    assert not again.datasets[0].serious().keys() & {
        "label out of range",
        "colour mask",
        "hidden class",
    }
    assert again.proposals == {}
    seen = report.datasets[0].classes_seen()
    assert seen == again.datasets[0].classes_seen()
    assert any(pixels for pixels, _, _ in seen)
    dataset = segfast.registry.DATASETS.build(cfg["train_dataloader"]["dataset"] | expected)
    labels = dataset[0]["data_samples"].gt_sem_seg.data.unique().tolist()
    assert set(labels) <= {*range(num_classes), 255}


def test_the_screen_holds_the_lines_to_paste(tmp_path, capsys):
    import shlex

    write(tmp_path, [blocks(0, 1, 2, 3)] * 2)
    path = tmp_path / "c.yaml"
    path.write_text(segfast.config.dump_config(config(tmp_path, parts=["train"])))
    out = tmp_path / "list.tsv"
    assert main(["check-data", str(path), "--out", str(out), "--workers", "0"]) == 2
    screen = capsys.readouterr()
    assert "check-data: 2 problems in the data" in screen.err
    assert len(out.read_text().splitlines()) == 2
    pasted = [
        shlex.split(line)[0] for line in screen.out.splitlines() if "dataloader.dataset." in line
    ]
    assert [parse_override(line) for line in pasted] == list(
        check(config(tmp_path, parts=["train"])).proposals.items()
    )
    assert main(["check-data", str(path), *pasted]) == 0
    assert "no problem found" in capsys.readouterr().out


def test_empty_classes_are_a_problem_in_training_only(tmp_path):
    write(tmp_path, [blocks(0, 1)])
    write(tmp_path, [blocks(0, 1)], "val")
    report = check(config(tmp_path))
    assert found(report) == {"empty class": 1}
    assert found(report, 1) == {"empty class in evaluation": 1}
    assert report.num_problems == 1
    assert report.statistics["model.loss"]["class_weight"] == [1.0, 1.0, 1.0]


def test_deep_images_and_a_pipeline_that_loads_them(tmp_path):
    deep = np.arange(64, dtype=np.uint16).reshape(4, 16) * 900
    write(tmp_path, [blocks(0, 1, 2, 0)] * 2, image=deep)
    cfg = config(tmp_path, parts=["train"])
    report = check(cfg)
    assert found(report) == {"deep image": 2}
    np.testing.assert_allclose(report.statistics["model.data_preprocessor"]["mean"], [deep.mean()])
    again = check(cfg, report.proposals)
    assert again.num_problems == 0
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "PackSegInputs"},
    ]
    again = check(config(tmp_path, parts=["train"], pipeline=pipeline))
    assert again.proposals == {"train_dataloader.dataset.pipeline.0.color_type": "unchanged"}


def test_a_data_set_that_cannot_be_listed_and_several_in_one(tmp_path):
    write(tmp_path, [blocks(0, 1, 2)])
    cfg = config(tmp_path)
    good = cfg["train_dataloader"]["dataset"]
    both = {
        "type": "torch.utils.data.ConcatDataset",
        "datasets": [good, {**good, "data_root": "x"}],
    }
    cfg["train_dataloader"]["dataset"] = both
    report = check(cfg)
    assert [part.key for part in report.datasets] == [
        "train_dataloader.dataset.datasets.0", "train_dataloader.dataset.datasets.1",
        "val_dataloader.dataset",
    ]  # fmt: skip
    assert found(report) == {}
    assert "no such folder for the images" in report.datasets[1].problems["data set"][0]
    with pytest.raises(UserError, match="no data set to check"):
        check({"model": cfg["model"]})


def test_the_built_in_demo_is_good():
    report = check(
        None, {"train_dataloader.dataset.num_images": 8, "val_dataloader.dataset.num_images": 4}
    )
    assert report.num_problems == 0
    assert report.datasets[0].num_images == 8


def test_values_that_nothing_can_mend():
    two, three = LabelRule(2), LabelRule(3)
    assert mend_values(set(range(200)), two).arguments == {}
    assert "instance numbers" in mend_values(set(range(200)), two).remark
    assert mend_values({0, 1, 255}, three).arguments == {}
    assert mend_colors(dict.fromkeys(range(1000), 1), three, None).arguments == {}


BESIDE_A_RULE = {
    "a stray beside a map": (
        [blocks(0, 255)] * 3 + [blocks(0, 255, 128)], 2, {"label_map": {0: 0, 255: 1}},
        {"label_map": {0: 0, 255: 1, 128: 255}},
    ),
    "strays beside Cityscapes' ids": (
        [blocks(7, 8, 11, 12)] * 3 + [blocks(7, 8, 34, 0)], 3,
        {"label_map": {7: 0, 8: 1, 11: 2, 0: 255, 12: 255}},
        {"label_map": {7: 0, 8: 1, 11: 2, 0: 255, 12: 255, 34: 255}},
    ),
    "a stray behind reduce_zero_label": (
        [blocks(0, 1, 2, 3)] * 3 + [blocks(1, 2, 3, 200)], 3, {"reduce_zero_label": True},
        {"label_map": {0: 0, 1: 1, 2: 2, 199: 255}},
    ),
    "both": (
        [blocks(0, 1, 2, 3)] * 3 + [blocks(1, 2, 3, 200)], 3,
        {"reduce_zero_label": True, "label_map": {0: 2, 1: 1, 2: 0}},
        {"label_map": {0: 2, 1: 1, 2: 0, 199: 255}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE_A_RULE)
def test_what_a_data_set_says_already_stays(tmp_path, name):
    masks, num_classes, given, expected = BESIDE_A_RULE[name]
    write(tmp_path, masks)
    cfg = config(tmp_path, num_classes, ["train"], **given)
    report = check(cfg)
    assert found(report) == {"label out of range": 1}
    assert report.proposals == {
        f"train_dataloader.dataset.{key}": value for key, value in expected.items()
    }
    in_a_file = config(tmp_path, num_classes, ["train"], **{**given, **expected})
    for again in (check(cfg, report.proposals), check(in_a_file)):
        assert found(again) == {}
        assert again.datasets[0].classes_seen() == report.datasets[0].classes_seen()
    good = {**cfg["train_dataloader"]["dataset"], "indices": [0, 1, 2]}
    before = segfast.registry.DATASETS.build(good)
    after = segfast.registry.DATASETS.build(in_a_file["train_dataloader"]["dataset"])
    for place in range(3):  # masks that were right keep their labels
        (old, new) = (
            data[place]["data_samples"].gt_sem_seg.data.tolist() for data in (before, after)
        )
        assert old == new


@pytest.mark.parametrize(
    ("masks", "num_classes", "arguments"),
    [
        ([blocks(0, 255)] * 3 + [blocks(0, 255, 128)], 2, {}),
        ([blocks(0, 255)] * 3 + [blocks(0, 255, 254)], 2, {}),
        ([blocks(0, 127, 255)], 3, {}),
        ([blocks(7, 8, 255)], 2, {}),
        ([blocks(1, 2, 3)], 2, {}),
        ([blocks(0, 128)], 3, {}),
        ([blocks(0, 1, 2)] * 3, 2, {"ignore_index": 0}),
        ([blocks(1, 2)] * 3, 2, {"ignore_index": 0}),
        ([blocks(0, 1, 2)] * 3, 2, {"ignore_index": 1}),
    ],
)
def test_where_several_are_as_likely_nothing_is_proposed(tmp_path, masks, num_classes, arguments):
    write(tmp_path, masks)
    report = check(config(tmp_path, num_classes, ["train"], **arguments))
    assert "label out of range" in found(report)
    assert report.proposals == {}
    assert len(report.remarks) == 1


def test_a_palette_that_nobody_gave_proposes_nothing(tmp_path):
    """The gap in metainfo is filled with Pascal VOC's colours."""
    black_and_white = np.array([[[0, 0, 0], [255, 255, 255]]] * 4, np.uint8)
    write(tmp_path, [black_and_white])
    colors = {"train_dataloader.dataset.mask_colors": [[0, 0, 0], [255, 255, 255]]}
    cfg = config(tmp_path, 2, ["train"])
    assert check(cfg).proposals == colors
    assert check(cfg, colors).num_problems == 0
    report = check(config(tmp_path, 3, ["train"]))
    assert report.proposals == {}
    assert "which class has which cannot be known" in report.remarks[0]


def test_one_colour_mask_among_index_masks(tmp_path):
    write(tmp_path, [blocks(0, 1)] * 5)
    colored = np.repeat(blocks(0, 1)[..., None] * 255, 3, 2)
    Image.fromarray(colored).save(tmp_path / "masks/train/3.png")
    report = check(config(tmp_path, 2, ["train"]))
    assert found(report) == {"colour mask": 1}
    assert report.proposals == {}
    assert report.remarks == [
        "train_dataloader.dataset: 1 masks are colour pictures, the others hold indices: convert these 1 files"
    ]
    assert report.datasets[0].classes_seen() == [(64, 4, 128), (64, 4, 128)]


def test_labels_are_compared_with_the_models_classes_where_the_data_set_names_none(tmp_path):
    write(tmp_path, [blocks(0, 1)] * 3 + [blocks(0, 1, 77)])
    cfg = config(tmp_path, 2, ["train"])
    del cfg["train_dataloader"]["dataset"]["metainfo"]
    report = check(cfg)
    assert found(report) == {"label out of range": 1}
    assert report.proposals == {
        "train_dataloader.dataset.label_map": {0: 0, 1: 1, 77: 255},
    }


def test_class_weights_are_median_frequency():
    # class 0 covers half of both images, class 1 a quarter of one, class 2 nothing
    assert class_weights([100, 25, 0], [200, 100, 0]) == [0.75, 1.5, 1.0]


@pytest.mark.shared_data
def test_camvid_and_horses(shared_data):
    void = {k: k for k in range(11)} | {11: 255}
    for name, num_classes, label_map in (("camvid", 11, void), ("horses", 2, {0: 0, 255: 1})):
        report = check(config(shared_data / name, num_classes, parts=["val"]))
        assert report.num_problems > 0
        assert report.proposals == {"val_dataloader.dataset.label_map": label_map}
        again = check(config(shared_data / name, num_classes, parts=["val"], label_map=label_map))
        assert again.num_problems == 0
