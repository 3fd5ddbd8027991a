"""CamVid, 11 classes: the built-in network from scratch, no pretrained weights, no other package.

segfast train configs/camvid_small_from_scratch.py data_root=DIR

DIR holds images/{train,val} and masks/{train,val}; masks are index images 0..10, 11 = void.
"""

# SPDX-License-Identifier: Apache-2.0

_base_ = ["_base_/camvid.py", "_base_/run.py"]
max_iters = 2100
crop_size = (256, 256)

model = dict(net=dict(type="SegNetS", num_classes=11), num_classes=11)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="RandomResize", scale=(480, 360), ratio_range=(0.75, 1.5), keep_ratio=True),
            dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackSegInputs"),
        ],
    ),
)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=700)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=50, by_epoch=False),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, begin=50, by_epoch=False),
]
