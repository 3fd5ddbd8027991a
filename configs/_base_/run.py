"""What the examples share: a Segmentor with cross-entropy over valid pixels, AdamW, a log line every 20 iterations."""

# SPDX-License-Identifier: Apache-2.0

model = dict(
    type="Segmentor",
    loss=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    test_cfg=dict(mode="whole", keep_logits=False),
)
optim_wrapper = dict(optimizer=dict(type="AdamW", weight_decay=1e-2))
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(save_best="mIoU"))
randomness = dict(seed=0)
