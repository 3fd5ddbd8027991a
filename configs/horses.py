"""Weizmann horses: every image has another size, and none is resized; batches are padded to a multiple of 32.

segfast train configs/horses.py data_root=DIR

DIR holds images/{train,val} and masks/{train,val}; masks are 0 and 255, mapped to the classes 0 and 1 here.
"""

# SPDX-License-Identifier: Apache-2.0

_base_ = "_base_/run.py"
data_root = "data/horses"
max_iters = 400

model = dict(
    net=dict(type="SegNetS", num_classes=2),
    num_classes=2,
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=32,
        test_cfg=dict(size_divisor=32),
    ),
)
dataset = dict(
    type="BaseSegDataset",
    data_root=data_root,
    metainfo=dict(classes=("background", "horse"), palette=[(40, 40, 40), (230, 160, 40)]),
    label_map={0: 0, 255: 1},
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/train", seg_map_path="masks/train"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackSegInputs"),
        ],
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
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=200)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, begin=20, by_epoch=False),
]
