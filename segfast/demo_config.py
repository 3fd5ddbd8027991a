"""The built-in demo: shapes on textured backgrounds, a small network, about two minutes on two CPU cores."""

# SPDX-License-Identifier: Apache-2.0

max_iters = 1800
num_classes = 5

model = dict(
    type="Segmentor",
    net=dict(type="SegNetS", num_classes=num_classes),
    num_classes=num_classes,
    loss=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    test_cfg=dict(mode="whole", keep_logits=False),
)
train_pipeline = [
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(type="ShapesDataset", num_images=800, seed=0, pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=8, dataset=dict(type="ShapesDataset", num_images=80, seed=1))
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters // 2)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=4e-3, weight_decay=1e-2))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type="PolyLR", power=0.9, eta_min=1e-5, begin=20, by_epoch=False),
]
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=max_iters // 2, save_best="mIoU")
)
randomness = dict(seed=0)
work_dir = "work_dirs/demo"
