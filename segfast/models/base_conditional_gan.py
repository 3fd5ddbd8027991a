"""BaseConditionalGAN: images of a given class."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segfast.models.base_gan import BaseGAN, Part
from segfast.registry import MODELS


@MODELS.register_module()
class BaseConditionalGAN(BaseGAN):
    """A GAN whose parts also get `label` (N,) int64: that of the sample, or a random one.

    Args:
        generator: f(noise, label) -> normalised images (N, C, H, W).
        discriminator: f(images, label) -> scores.
        data_preprocessor: see `BaseGAN`.
        generator_steps: see `BaseGAN`.
        discriminator_steps: see `BaseGAN`.
        noise_size: see `BaseGAN`.
        num_classes: number of labels; that of the generator or discriminator where one of them has it.
        loss_config: see `BaseGAN`.
    """

    def __init__(
        self,
        generator: Part,
        discriminator: Part | None = None,
        data_preprocessor: Part | None = None,
        generator_steps: int = 1,
        discriminator_steps: int = 1,
        noise_size: int | Sequence[int] | None = None,
        num_classes: int | None = None,
        loss_config: Mapping | None = None,
    ) -> None:
        """Build the parts; all have to agree on the number of classes."""
        counts = {
            "num_classes": num_classes,
            "generator": _own_num_classes(generator),
            "discriminator": _own_num_classes(discriminator),
        }
        counts = {name: count for name, count in counts.items() if count is not None}
        assert len(set(counts.values())) <= 1, f"expected one num_classes, got {counts}"
        self._given_classes = next(iter(counts.values()), None)
        super().__init__(
            generator,
            discriminator,
            data_preprocessor,
            generator_steps,
            discriminator_steps,
            noise_size,
            loss_config,
        )
        self.num_classes = self._given_classes or _own_num_classes(self.generator)

    def conditions(self, data_samples: Any, num_images: int) -> dict[str, Tensor]:
        """`label`: the samples' where they have one."""
        label = self.data_sample_to_label(data_samples)
        return {"label": self.label_fn(num_batches=num_images) if label is None else label}

    def data_sample_to_label(self, data_sample: Any) -> Tensor | None:
        """The labels (N,) of the stacked samples; None if they have none."""
        if data_sample is None or "gt_label" not in data_sample:
            return None
        label = data_sample.gt_label.label
        return label.squeeze(1) if label.ndim == 2 and label.shape[1] == 1 else label

    def label_fn(
        self, label: Tensor | Sequence | Callable | None = None, num_batches: int = 1
    ) -> Tensor:
        """Labels (N,) int64 on the model's device.

        Args:
            label: labels, or a function of how many; None for uniformly random ones.
            num_batches: how many to sample.
        """
        if label is None:
            assert self.num_classes, "num_classes is needed to sample labels"
            return torch.randint(self.num_classes, (num_batches,), device=self.device)
        label = torch.as_tensor(label(num_batches) if callable(label) else label)
        assert label.ndim == 1, f"expected labels (N,), got {tuple(label.shape)}"
        assert label.dtype == torch.int64, f"expected int64 labels, got {label.dtype}"
        return label.to(self.device)

    def train_discriminator(
        self, inputs: Mapping, data_samples: Any, optimizer_wrapper: Any
    ) -> dict[str, Tensor]:
        """As `BaseGAN`; real images need their labels."""
        assert self.data_sample_to_label(data_samples) is not None, (
            "data_samples have no gt_label (hint: put gt_label among the pipeline's results)"
        )
        return super().train_discriminator(inputs, data_samples, optimizer_wrapper)

    def _build(self, name: str, part: Part, **defaults: Any) -> nn.Module:
        if self._given_classes is not None:
            defaults["num_classes"] = self._given_classes
        return super()._build(name, part, **defaults)


def _own_num_classes(part: Part | None) -> int | None:
    """What a module or its config says."""
    if isinstance(part, Mapping):
        return part.get("num_classes")
    return getattr(part, "num_classes", None)
