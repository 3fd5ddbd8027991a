"""ConcatImageVisualizer: layout, value ranges, files."""

# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from PIL import Image

from segfast.errors import ConfigError
from segfast.structures import DataSample, PixelData
from segfast.visualization import ConcatImageVisualizer


def column(*values):
    return torch.tensor(values).view(-1, 1, 1)


def test_layout_and_file(tmp_path):
    clip = torch.stack([column(1.0, 2, 3).expand(3, 32, 32), column(4.0, 5, 6).expand(3, 32, 32)])
    sample = DataSample(
        path="fake_dir/rgb.x.png",
        tensor3d=clip[0],
        array3d=np.ones((32, 32, 3)) * [40, 50, 60],
        tensor4d=clip,
    )
    visualizer = ConcatImageVisualizer(
        fn_key="path",
        img_keys=["tensor3d", "array3d", "tensor4d"],
        vis_backends=[{"type": "LocalVisBackend"}],
        save_dir=tmp_path,
    )
    visualizer.add_datasample(sample, step=2)
    picture = np.asarray(Image.open(tmp_path / "vis_data" / "vis_image" / "rgb_2.png"))
    assert picture.shape == (64, 96, 3)
    assert picture[31, [0, 32, 64]].tolist() == [[1, 2, 3], [40, 50, 60], [1, 2, 3]]
    assert picture[32, [0, 32, 64]].tolist() == [[127] * 3, [127] * 3, [4, 5, 6]]


def test_kinds_of_images():
    sample = DataSample(
        metainfo={"img_path": ["a/b c.png"]},
        grey=torch.full((1, 2, 2), 7, dtype=torch.uint8),
        flat=np.full((2, 2), 9),
        pixels=PixelData(data=torch.full((3, 2, 2), 300.0)),
        signed=torch.tensor([-1.0, 0, 1]).view(3, 1, 1).expand(3, 2, 2),
        output=DataSample(pred_img=torch.zeros(3, 2, 2), flat=np.full((2, 2), 11.4)),
    )
    keys = ["grey", "flat", "pixels", "signed", "pred_img"]
    visualizer = ConcatImageVisualizer("img_path", keys, {"signed": (-1, 1), "grey": (0, 1)}, True)
    picture = visualizer.add_datasample(sample)
    assert picture.shape == (2, 10, 3)
    assert picture.dtype == np.uint8
    expected = [[7] * 3, [11] * 3, [255] * 3, [255, 128, 0], [0] * 3]  # BGR became RGB
    assert picture[0, ::2].tolist() == expected


def test_backends_get_the_name_and_the_step():
    seen = []

    class Backend:
        def add_image(self, name, image, step=0):
            seen.append((name, image.shape, step))

        def add_scalars(self, scalars, step=0):
            seen.append((scalars, step))

        def close(self):
            seen.append("closed")

    visualizer = ConcatImageVisualizer("img_path", "img", vis_backends=[Backend()])
    for path in ("a/b c.png", "a\\c.x.png", ["c.png", "d.png"]):
        visualizer.add_datasample(DataSample(img=torch.zeros(1, 2, 3), img_path=path), 4)
    visualizer.add_scalars({"loss": 1.0}, 5)
    visualizer.close()
    assert seen == [("c", (2, 3, 3), 4)] * 3 + [({"loss": 1.0}, 5), "closed"]


def test_what_is_missing():
    sample = DataSample(img=torch.zeros(3, 2, 2), img_path="a.png")
    with pytest.warns(UserWarning, match="not drawn: other"):
        ConcatImageVisualizer("img_path", ["img", "other"]).add_datasample(sample)
    with pytest.raises(ConfigError, match=r"visualizer.img_keys: .* which has img, img_path"):
        ConcatImageVisualizer("img_path", ["other"]).add_datasample(sample)
    with pytest.raises(ConfigError, match=r"visualizer.fn_key: not in the sample"):
        ConcatImageVisualizer("gt_path", ["img"]).add_datasample(sample)
    with pytest.raises(ConfigError, match=r"vis_backends.0.save_dir: missing"):
        ConcatImageVisualizer("img_path", ["img"], vis_backends=[{"type": "LocalVisBackend"}])
