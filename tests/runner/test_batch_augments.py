"""A run with batch augmentations resumes with the random numbers that it would have drawn."""

# SPDX-License-Identifier: Apache-2.0
import torch
from runner.toys import ToyData, toy_config
from torch import nn

from segfast.models import Segmentor
from segfast.runner import Runner
from segfast.structures import PixelData, SegDataSample


class ToyImages(ToyData):
    """Noise of two classes."""

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(int(index))
        image = torch.randn(3, 8, 8, generator=generator)
        label = (image[:1] > 0).to(torch.uint8)
        sample = SegDataSample(metainfo={"ori_shape": (8, 8)}, gt_sem_seg=PixelData(data=label))
        return {"inputs": image, "data_samples": sample}


class ToySegmentor(Segmentor):
    def __init__(self, prob):
        augments = [{"type": name, "prob": prob} for name in ("Mosaic", "CutMix", "MixUp")]
        preprocessor = {"type": "SegDataPreProcessor", "batch_augments": augments}
        super().__init__(nn.Conv2d(3, 2, 1), data_preprocessor=preprocessor)


def train(work_dir, prob=0.6, **changes):
    cfg = toy_config(
        work_dir,
        model={"type": ToySegmentor, "prob": prob},
        train_dataloader={"batch_size": 4, "dataset": {"type": ToyImages}},
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": 12},
        default_hooks={"checkpoint": {"interval": 5, "max_keep_ckpts": -1}, "visualization": None},
        **changes,
    )
    for key in ("val_dataloader", "val_evaluator"):
        del cfg[key]
    runner = Runner.from_cfg(cfg)
    runner.train()
    return torch.cat([p.detach().flatten() for p in runner.model.parameters()])


def test_resume_is_exact(tmp_path):
    whole = train(tmp_path / "whole")
    torch.manual_seed(999)
    middle = str(tmp_path / "whole" / "iter_5.pth")
    assert torch.equal(train(tmp_path / "again", resume=True, load_from=middle), whole)
    assert not torch.equal(train(tmp_path / "other", prob=0.0), whole)
