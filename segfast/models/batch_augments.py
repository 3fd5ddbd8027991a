"""MixUp, CutMix and Mosaic: augmentations of a stacked batch, on the device where it lies.

Every image meets its neighbours in the batch, which the loader's order makes random. Random numbers are drawn on the
host, from torch's own CPU generator (the Runner seeds it and saves it in checkpoints) and the process's rank, and reach
the device as arguments of kernels: nobody waits for it.

Source: Zhang et al. 2018, arXiv:1710.09412 (MixUp); Yun et al. 2019, arXiv:1905.04899 (CutMix); Bochkovskiy et al.
2020, arXiv:2004.10934 (Mosaic).
"""

# SPDX-License-Identifier: Apache-2.0
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segfast.distributed import world
from segfast.errors import UserError
from segfast.models.mixed_labels import GROUND_TRUTH, SECOND, SHARE
from segfast.registry import MODELS

Batch = tuple[Tensor, list[Any]]


class BatchAugment(ABC):
    """Changes a training batch with probability `prob`; subclasses implement `mix`.

    Args:
        prob: of changing a batch.
    """

    def __init__(self, prob: float = 1.0) -> None:
        """Check the probability."""
        if not 0 <= prob <= 1:
            raise UserError(f"{type(self).__name__}: prob is a probability, got {prob}")
        self.prob = prob

    def __call__(self, inputs: Tensor, data_samples: list[Any]) -> Batch:
        """Augment a batch.

        Args:
            inputs: (N, C, H, W) images; left as they are.
            data_samples: N samples whose maps are all (K, H, W); these objects get new maps.

        Returns:
            New images and the same samples.

        Raises:
            UserError: samples of one batch hold different maps.
        """
        rng = batch_generator()
        if rng.random() >= self.prob:
            return inputs, data_samples
        return self.mix(inputs, data_samples, rng)

    @abstractmethod
    def mix(self, inputs: Tensor, data_samples: list[Any], rng: np.random.Generator) -> Batch:
        """Augment a batch with numbers drawn from `rng`."""


def batch_generator() -> np.random.Generator:
    """A generator for one batch: the next of torch's CPU generator, another one on every rank."""
    return np.random.default_rng((world()[0], int(torch.randint(2**62, (), device="cpu"))))


@MODELS.register_module(["MixUp", "Mixup"])
class MixUp(BatchAugment):
    """Blends every image with its neighbour: lam * image + (1 - lam) * neighbour, lam from Beta(alpha, alpha).

    The neighbour's labels travel beside the image's own, as `mixed_sem_seg` with the share lam of
    its own labels in the metainfo `mix_share`; segfast's segmentors and heads weigh the losses of
    both (see `mixed_labels`).

    Args:
        alpha: of the Beta distribution; 1 draws every share alike, small ones are near 0 or 1.
        prob: of blending a batch.
        num_classes: write soft labels (num_classes, H, W) float into `gt_sem_seg` instead, for models
            that know nothing of a second map; an ignored pixel has no share of any class.
    """

    def __init__(
        self, alpha: float = 0.2, prob: float = 1.0, num_classes: int | None = None
    ) -> None:
        """Check the settings."""
        super().__init__(prob)
        if not alpha > 0:
            raise UserError(f"MixUp: alpha should be above 0, got {alpha}")
        self.alpha = alpha
        self.num_classes = num_classes

    def mix(self, inputs: Tensor, data_samples: list[Any], rng: np.random.Generator) -> Batch:
        """Blend."""
        lam = float(rng.beta(self.alpha, self.alpha))
        maps = stacked_maps(data_samples)
        if set(maps) != {"gt_sem_seg"}:
            raise UserError(
                f"MixUp: samples hold {', '.join(sorted(maps)) or 'no maps'}, but only labels "
                "(gt_sem_seg) that were not mixed before can be blended (remove it, or use CutMix)"
            )
        label = maps["gt_sem_seg"]
        partner = label.roll(1, 0)
        if self.num_classes is None:
            for sample, other in zip(data_samples, partner, strict=True):
                sample.set_data({SECOND: type(sample.gt_sem_seg)(data=other)})
                sample.set_metainfo({SHARE: lam})
        else:
            classes = torch.arange(self.num_classes, device=label.device).view(-1, 1, 1)
            soft = lam * (label == classes).float() + (1 - lam) * (partner == classes).float()
            set_maps(data_samples, {"gt_sem_seg": soft})
        return inputs.lerp(inputs.roll(1, 0), 1 - lam), data_samples


@MODELS.register_module()
class CutMix(BatchAugment):
    """Pastes one window of every image's neighbour, labels included, over the image's own.

    Args:
        alpha: of the Beta distribution of the share that is kept; the window's sides are
            sqrt(1 - share) of the image's, cut off where it leaves the image.
        prob: of changing a batch.
    """

    def __init__(self, alpha: float = 1.0, prob: float = 1.0) -> None:
        """Check the settings."""
        super().__init__(prob)
        if not alpha > 0:
            raise UserError(f"CutMix: alpha should be above 0, got {alpha}")
        self.alpha = alpha

    def mix(self, inputs: Tensor, data_samples: list[Any], rng: np.random.Generator) -> Batch:
        """Paste."""
        side = float(np.sqrt(1 - rng.beta(self.alpha, self.alpha)))
        rows, columns = (_window(length, side, rng) for length in inputs.shape[-2:])

        def paste(batch: Tensor) -> Tensor:
            result = batch.clone()
            result[..., rows, columns] = batch[..., rows, columns].roll(1, 0)
            return result

        return over_batch(paste, inputs, data_samples)


@MODELS.register_module()
class Mosaic(BatchAugment):
    """Puts every image together from windows of itself and its three neighbours, labels included.

    The four meet at a random point. Windows are cut, not resized, so labels stay as they are.

    Args:
        center_range: where the point lies, as shares of height and width.
        prob: of changing a batch.
    """

    def __init__(self, center_range: Sequence[float] = (0.25, 0.75), prob: float = 1.0) -> None:
        """Check the settings."""
        super().__init__(prob)
        low, high = center_range
        if not 0 <= low <= high <= 1:
            raise UserError(f"Mosaic: center_range is 0 <= low <= high <= 1, got {center_range}")
        self.center_range = (float(low), float(high))

    def mix(self, inputs: Tensor, data_samples: list[Any], rng: np.random.Generator) -> Batch:
        """Put together."""
        cuts = [round(length * rng.uniform(*self.center_range)) for length in inputs.shape[-2:]]
        sides = [
            ((0, cut), (cut, length)) for cut, length in zip(cuts, inputs.shape[-2:], strict=True)
        ]
        windows = [(rows, columns) for rows in sides[0] for columns in sides[1]]
        sources = [
            [_place(length, to, rng) for length, to in zip(inputs.shape[-2:], window, strict=True)]
            for window in windows
        ]

        def assemble(batch: Tensor) -> Tensor:
            result = batch.clone()
            for shift, (window, source) in enumerate(zip(windows, sources, strict=True)):
                rows, columns = (slice(*side) for side in window)
                result[..., rows, columns] = batch[..., source[0], source[1]].roll(shift, 0)
            return result

        return over_batch(assemble, inputs, data_samples)


def over_batch(
    change: Callable[[Tensor], Tensor], inputs: Tensor, data_samples: list[Any]
) -> Batch:
    """Apply the same change to images (N, C, H, W) and to every map (N, K, H, W) of the samples."""
    maps = stacked_maps(data_samples)
    set_maps(data_samples, {name: change(batch) for name, batch in maps.items()})
    return change(inputs), data_samples


def stacked_maps(data_samples: Sequence[Any]) -> dict[str, Tensor]:
    """The maps of all samples by name, (N, K, H, W) each."""
    names = [
        {name for name in (*GROUND_TRUTH, SECOND) if name in sample} for sample in data_samples
    ]
    if any(found != names[0] for found in names):
        held = " and ".join(sorted({", ".join(sorted(found)) or "none" for found in names}))
        raise UserError(f"batch_augments: samples of one batch hold different maps: {held}")
    return {
        name: torch.stack([getattr(sample, name).data for sample in data_samples])
        for name in sorted(names[0])
    }


def set_maps(data_samples: Sequence[Any], maps: dict[str, Tensor]) -> None:
    """Give the samples new maps."""
    for name, batch in maps.items():
        for sample, data in zip(data_samples, batch, strict=True):
            setattr(sample, name, type(getattr(sample, name))(data=data))


def _window(length: int, share: float, rng: np.random.Generator) -> slice:
    """A window around a point that is drawn from the whole length."""
    size, center = round(length * share), int(rng.integers(length))
    start = center - size // 2
    return slice(max(start, 0), max(min(start + size, length), 0))


def _place(length: int, window: tuple[int, int], rng: np.random.Generator) -> slice:
    """A window of the same size elsewhere in the length."""
    size = window[1] - window[0]
    start = int(rng.integers(length - size + 1))
    return slice(start, start + size)
