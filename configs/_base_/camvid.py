"""CamVid: images/{train,val} and masks/{train,val} under data_root; masks are index images 0..10, 11 = void."""

# SPDX-License-Identifier: Apache-2.0

data_root = "data/camvid"
classes = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree",
    "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
palette = [
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
]  # fmt: skip
dataset = dict(
    type="BaseSegDataset",
    data_root=data_root,
    metainfo=dict(classes=classes, palette=palette),
    # Void becomes the ignored label; the other masks' values are the classes.
    label_map={**{i: i for i in range(11)}, 11: 255},
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/train", seg_map_path="masks/train"),
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/val", seg_map_path="masks/val"),
        test_mode=True,
    ),
)
