"""The visualizer: colours, blending, grids that show what they claim."""

# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from segfast.errors import ConfigError
from segfast.structures import PixelData, SegDataSample
from segfast.visualization import LocalVisBackend, SegLocalVisualizer

META = {"classes": ("sky", "road"), "palette": [(0, 0, 200), (120, 60, 120)]}


def sample(gt=None, pred=None):
    made = SegDataSample()
    if gt is not None:
        made.gt_sem_seg = PixelData(data=torch.tensor(gt)[None])
    if pred is not None:
        made.pred_sem_seg = PixelData(data=torch.tensor(pred)[None])
    return made


def test_overlay_blends_and_leaves_ignored_pixels_alone():
    image = np.full((1, 3, 3), 100, np.uint8)
    drawn = SegLocalVisualizer(dataset_meta=META, alpha=0.5).overlay(image, np.array([[0, 1, 255]]))
    assert drawn.tolist() == [[[50, 50, 150], [110, 80, 110], [100, 100, 100]]]
    solid = SegLocalVisualizer(dataset_meta=META, alpha=1.0).overlay(image, np.array([[0, 1, 255]]))
    assert solid.tolist() == [[[0, 0, 200], [120, 60, 120], [100, 100, 100]]]


def test_truth_and_prediction_side_by_side(tmp_path):
    image = np.zeros((2, 2, 3), np.uint8)
    both = sample([[0, 0], [1, 1]], [[1, 1], [1, 1]])
    visualizer = SegLocalVisualizer(dataset_meta=META, alpha=1.0, save_dir=tmp_path)
    drawn = visualizer.add_datasample("a", image, both, step=3)
    assert drawn.shape == (2, 4, 3)
    assert drawn[0, :, 2].tolist() == [200, 200, 120, 120]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a_3.png")), drawn)
    only = visualizer.add_datasample("b", image, both, draw_gt=False, out_file=tmp_path / "x/b.png")
    assert only.shape == (2, 2, 3)
    assert (tmp_path / "x/b.png").is_file()
    assert visualizer.add_datasample("c", image).tolist() == image.tolist()


def test_unknown_classes_get_colours_of_their_own():
    visualizer = SegLocalVisualizer(alpha=1.0)
    drawn = visualizer.colourise(np.array([[0, 1, 2, 255, -1]]))
    assert len({tuple(c) for c in drawn[0, :4].tolist()}) == 4
    assert drawn[0, 3].tolist() == drawn[0, 4].tolist()
    assert np.array_equal(drawn, visualizer.colourise(np.array([[0, 1, 2, 255, -1]])))


def test_grid_rows_of_different_sizes(tmp_path):
    rows = []
    for height, width in ((20, 30), (24, 16)):
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        image[0] = 250  # blue, as decoders of BGR hand it on
        truth = np.zeros((height, width), np.uint8)
        truth[0] = 255
        pred = np.zeros((height, width), np.int64)
        pred[:, :4] = 1
        rows.append((image, sample(truth.tolist(), pred.tolist())))
    SegLocalVisualizer(dataset_meta=META).draw_grid(rows, tmp_path / "pictures" / "grid.png")
    picture = np.asarray(Image.open(tmp_path / "pictures" / "grid.png")).astype(int)
    colours, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    found = dict(zip(map(tuple, colours.tolist()), counts.tolist(), strict=True))
    pixels = 20 * 30 + 24 * 16
    assert found[(0, 0, 250)] == pixels  # the image in RGB
    assert found[(120, 60, 120)] >= 4 * (20 + 24)  # the prediction


def test_refuses_alpha_out_of_range():
    with pytest.raises(ValueError, match="alpha"):
        SegLocalVisualizer(alpha=1.5)


def test_backend_writes_named_steps(tmp_path):
    backend = LocalVisBackend(tmp_path)
    backend.add_image("a", np.zeros((2, 2, 3), np.uint8), step=7)
    assert len(list(tmp_path.rglob("a_7.png"))) == 1


def test_backends_get_pictures_and_numbers(tmp_path):
    visualizer = SegLocalVisualizer(
        name="visualizer", vis_backends=[{"type": "LocalVisBackend"}], save_dir=tmp_path, alpha=1.0,
        classes=META["classes"], palette=META["palette"],
    )  # fmt: skip
    drawn = visualizer.add_datasample(
        "a", np.zeros((1, 2, 3), np.uint8), sample(pred=[[0, 1]]), step=3
    )
    assert drawn.tolist() == [[list(colour) for colour in META["palette"]]]
    written = np.asarray(Image.open(tmp_path / "vis_data/vis_image/a_3.png"))
    assert np.array_equal(written, drawn)
    assert not (tmp_path / "a_3.png").exists()
    visualizer.add_scalars({"loss": torch.tensor(0.5)}, step=7)
    assert (tmp_path / "vis_data/scalars.json").read_text() == '{"loss": 0.5, "step": 7}\n'
    visualizer.close()


def test_positions_are_upstreams(tmp_path):
    image = np.zeros((2, 2, 3), np.uint8)
    made = SegLocalVisualizer("name", image, None, tmp_path, *META.values(), None, 1.0)
    assert (made.name, made.alpha, made.save_dir) == ("name", 1.0, tmp_path)
    assert made.get_image() is image
    assert made.dataset_meta == {"classes": list(META["classes"]), "palette": META["palette"]}
    both = sample([[0, 0], [1, 1]], [[1, 1], [1, 1]])
    out = tmp_path / "x" / "y.png"
    drawn = made.add_datasample("y", image, both, False, True, False, 0, out, 3, False)
    assert np.array_equal(np.asarray(Image.open(out)), drawn)
    assert made.get_image() is drawn
    assert not (tmp_path / "y_3.png").exists()


def test_the_last_one_made_is_the_current_one():
    first, last = SegLocalVisualizer("first"), SegLocalVisualizer("last")
    assert SegLocalVisualizer.get_current_instance() is last
    assert SegLocalVisualizer.get_instance("first") is first
    again = SegLocalVisualizer("first")
    assert SegLocalVisualizer.get_current_instance() is again
    assert SegLocalVisualizer.get_instance("third", alpha=0.1).alpha == 0.1


def test_no_visualizer_was_made(monkeypatch):
    monkeypatch.setattr(SegLocalVisualizer, "_instances", {})
    with pytest.raises(RuntimeError, match="no visualizer was made yet"):
        SegLocalVisualizer.get_current_instance()


def test_names_stand_on_their_regions():
    labels = np.zeros((60, 120), np.int64)
    labels[30:] = 1
    labels[:, -1] = 255
    made = SegLocalVisualizer(dataset_meta=META, alpha=1.0)
    image = np.full((60, 120, 3), 9, np.uint8)
    data = sample(pred=labels.tolist())
    plain = made.add_datasample("a", image, data, with_labels=False)
    named = made.add_datasample("a", image, data)
    changed = (plain != named).any(axis=-1)
    assert 50 < changed[:30].sum() < 800
    assert 50 < changed[30:].sum() < 800
    colours = {tuple(c) for c in named[changed].tolist()}
    assert (0, 0, 0) in colours  # the frame
    assert max(min(colour) for colour in colours) > 150  # the letters
    unnamed = SegLocalVisualizer(alpha=1.0).add_datasample("a", image, data)
    assert unnamed.shape == named.shape
    small = sample(pred=[[0, 1]])  # too small for a name
    assert made.add_datasample("a", image[:1, :2], small)[0, 0].tolist() == [0, 0, 200]


def test_names_where_the_font_has_one_size(monkeypatch):
    load = ImageFont.load_default

    def of_one_size(*size):
        if size:
            raise TypeError("load_default() takes 0 positional arguments")
        return load()

    monkeypatch.setattr(ImageFont, "load_default", of_one_size)
    made = SegLocalVisualizer(dataset_meta=META, alpha=1.0)
    data = sample(pred=np.zeros((60, 120), np.int64).tolist())
    drawn = made.add_datasample("a", np.zeros((60, 120, 3), np.uint8), data)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 2


def test_labels_of_another_size_are_brought_to_the_image():
    made = SegLocalVisualizer(dataset_meta=META, alpha=1.0)
    drawn = made.add_datasample("a", np.zeros((2, 4, 3), np.uint8), sample([[0, 1]], [[0, 1]] * 3))
    assert (drawn[..., 2] == [200, 200, 120, 120] * 2).all()


def test_show_needs_a_display(monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self, title=None: shown.append(title))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    image = np.zeros((2, 2, 3), np.uint8)
    with pytest.warns(UserWarning, match="show=True, but there is no display"):
        SegLocalVisualizer().add_datasample("a", image, show=True, wait_time=60)
    assert not shown
    monkeypatch.setenv("DISPLAY", ":0")
    SegLocalVisualizer().add_datasample("a", image, show=True)
    assert shown == ["a"]


def test_classes_of_a_registered_data_set():
    for name in ("shapes", "ShapesDataset"):
        meta = SegLocalVisualizer(dataset_name=name).dataset_meta
        assert (len(meta["classes"]), len(meta["palette"])) == (5, 5)
    chosen = SegLocalVisualizer(classes=list("abcde"), dataset_name="shapes").dataset_meta
    assert chosen["classes"] == list("abcde")
    assert chosen["palette"] == meta["palette"]
    with pytest.raises(ConfigError, match="dataset_name: no data set 'shape5' is registered"):
        SegLocalVisualizer(dataset_name="shape5")
