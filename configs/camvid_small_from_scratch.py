"""CamVid, 11 classes: the built-in network from scratch, no pretrained weights, no other package.

segfast train configs/camvid_small_from_scratch.py data_root=DIR

DIR holds images/{train,val} and masks/{train,val}; masks are index images 0..10, 11 = void.
"""

# SPDX-License-Identifier: Apache-2.0

data_root = "data/camvid"
max_iters = 2100
crop_size = (256, 256)
classes = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree",
    "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
palette = [
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
]  # fmt: skip
label_map = {**{i: i for i in range(11)}, 11: 255}

model = dict(
    type="Segmentor",
    net=dict(type="SegNetS", num_classes=len(classes)),
    num_classes=len(classes),
    loss=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    test_cfg=dict(mode="whole", keep_logits=False),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(480, 360), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
dataset = dict(
    type="BaseSegDataset",
    data_root=data_root,
    metainfo=dict(classes=classes, palette=palette),
    label_map=label_map,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/train", seg_map_path="masks/train"),
        pipeline=train_pipeline,
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
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=700)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=2e-3, weight_decay=1e-2))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=50, by_epoch=False),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, begin=50, by_epoch=False),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=700, save_best="mIoU"))
randomness = dict(seed=0)
