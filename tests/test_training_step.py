"""What one training iteration runs and holds, and that a seed fixes a whole run."""

# SPDX-License-Identifier: Apache-2.0

import torch

import segfast
from segfast.datasets import ShapesDataset, pseudo_collate
from segfast.models import Segmentor, SegNetS
from segfast.runner import OptimWrapper

SMALL = {
    "max_iters": 4,
    "train_dataloader.dataset.num_images": 16,
    "val_dataloader.dataset.num_images": 6,
    "train_dataloader.batch_size": 4,
    "model.net.width": 4,
    "device": "cpu",
}


def test_one_iteration_runs_our_kernels_and_holds_no_full_logits():
    model = Segmentor(
        SegNetS(200, width=4), num_classes=200, data_preprocessor={"type": "SegDataPreProcessor"}
    )
    batch = pseudo_collate([ShapesDataset(num_images=2)[i] for i in range(2)])
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    model.train_step(batch, optim)
    with torch.profiler.profile(profile_memory=True, record_shapes=True) as profile:
        model.train_step(batch, optim)
    names = {event.name for event in profile.events()}
    assert names >= {
        "segfast::normalize_pad_stack",
        "segfast::pad_stack",
        "segfast::upsample_cross_entropy_with_gradient",
        "segfast::scale_gradient",
    }
    full_logits_bytes = 2 * 200 * 96 * 96 * 4
    assert max(event.self_cpu_memory_usage for event in profile.events()) < full_logits_bytes / 2


def test_same_seed_same_weights_with_and_without_workers(tmp_path):
    one = segfast.train(work_dir=tmp_path / "a", overrides=SMALL)
    two = segfast.train(
        work_dir=tmp_path / "b", overrides=SMALL | {"train_dataloader.num_workers": 2}
    )
    for (name, a), b in zip(
        one.model.state_dict().items(), two.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert one.metrics == two.metrics


def test_public_names_are_importable():
    for name in segfast.__all__:
        assert hasattr(segfast, name), name
    assert segfast.build_info()["cpu_capability"] in ("baseline", "avx2", "avx512")
