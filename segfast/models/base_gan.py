"""BaseGAN: a generator and a discriminator that take turns, each with an optimiser of its own."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from segfast.errors import ConfigError
from segfast.models.base import BaseModel
from segfast.registry import MODELS
from segfast.structures import DataSample

Part = Mapping | nn.Module


@MODELS.register_module()
class BaseGAN(BaseModel):
    """Images from noise.

    An iteration updates the discriminator; after every `discriminator_steps` updates the generator takes
    `generator_steps` of its own. `optim_wrapper` holds one wrapper for each: `generator` and `discriminator`.

    Args:
        generator: f(noise (N, noise_size)) -> normalised images (N, C, H, W); a module or its config.
        discriminator: f(images) -> scores; None for sampling only.
        data_preprocessor: has to undo what it does; None for `DataPreprocessor` with its defaults.
        generator_steps: updates of the generator in its turn.
        discriminator_steps: updates of the discriminator before the generator's turn.
        noise_size: length or shape of one sample's noise; the generator's own attribute where it has one.
        loss_config: dict(gan_loss=..., gen_auxiliary_loss=..., disc_auxiliary_loss=...), modules or configs. An
            auxiliary loss (or each of a list) is called with a dict of everything at hand and has `loss_name()`.
    """

    data_preprocessor: Any  # has `destruct`
    discriminator: Any  # a module, or None

    def __init__(
        self,
        generator: Part,
        discriminator: Part | None = None,
        data_preprocessor: Part | None = None,
        generator_steps: int = 1,
        discriminator_steps: int = 1,
        noise_size: int | Sequence[int] | None = None,
        loss_config: Mapping | None = None,
    ) -> None:
        """Build the parts."""
        if data_preprocessor is None:
            data_preprocessor = {"type": "DataPreprocessor", "data_keys": None}
        super().__init__(data_preprocessor)
        self.generator_steps, self.discriminator_steps = generator_steps, discriminator_steps
        given = {} if noise_size is None else {"noise_size": noise_size}
        self.generator = self._build("generator", generator, **given)
        self.noise_size = getattr(self.generator, "noise_size", noise_size)
        self.discriminator = (
            None if discriminator is None else self._build("discriminator", discriminator)
        )
        self.loss_config = dict(loss_config or {})
        self.gan_loss = self._loss("gan_loss")
        self.gen_auxiliary_losses = self._losses("gen_auxiliary_loss")
        self.disc_auxiliary_losses = self._losses("disc_auxiliary_loss")

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    # ---- sampling ------------------------------------------------------------------------------

    def forward(
        self, inputs: Tensor | Mapping, data_samples: Any = None, mode: str | None = None
    ) -> list[DataSample]:
        """Generate images.

        Args:
            inputs: noise (N, ...), or a dict with any of `noise`, `num_batches`, `img` (real images, kept as `gt_img`)
                and `sample_kwargs` for the generator.
            data_samples: the stacked samples, whose fields the results keep.
            mode: not used: losses are `train_step`'s.

        Returns:
            N samples with `fake_img` (BGR in [0, 255]) and `noise`.
        """
        options = inputs if isinstance(inputs, Mapping) else {"noise": inputs}
        kwargs = dict(options.get("sample_kwargs") or {})
        noise = self.noise_fn(options.get("noise"), _num_images(options, data_samples))
        known = {"noise": noise, **self.conditions(data_samples, len(noise))}
        images = self.generator(**known, **kwargs)
        sample = DataSample()
        if isinstance(data_samples, DataSample):
            sample.update(data_samples)
        if "img" in options:
            sample.set_data({"gt_img": options["img"]})
        images = self.data_preprocessor.destruct(images, data_samples)
        sample.set_data({"fake_img": images, "noise": noise, "sample_kwargs": kwargs})
        if "label" in known:
            sample.set_gt_label(known["label"])
        return sample.split(allow_nonseq_value=True)

    def conditions(self, data_samples: Any, num_images: int) -> dict[str, Tensor]:
        """Keyword arguments of the generator besides `noise`."""
        return {}

    def noise_fn(self, noise: Tensor | Callable | None = None, num_batches: int = 1) -> Tensor:
        """Noise on the model's device.

        Args:
            noise: returned as it is (one sample's gets a batch dimension), or a function of the shape; None for normal
                noise.
            num_batches: images to sample for.
        """
        size = self.noise_size
        sizes = [size] if isinstance(size, int) else list(size or [])
        if isinstance(noise, Tensor):
            noise = noise[None] if noise.ndim == 1 else noise
        else:
            assert sizes, "noise_size is needed to sample noise"
            shape = (num_batches, *sizes)
            noise = noise(shape) if noise else torch.randn(shape, device=self.device)
        assert not sizes or list(noise.shape[1:]) == sizes, (
            f"expected noise (N, {', '.join(map(str, sizes))}), got {tuple(noise.shape)}"
        )
        return noise.to(self.device)

    # ---- training ------------------------------------------------------------------------------

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """Update the discriminator and, when it is its turn, the generator.

        Args:
            data: a collated batch whose `inputs` are real images, or a dict with those as `img`.
            optim_wrapper: an OptimWrapperDict with `generator` and `discriminator`.

        Returns:
            0-d tensors on the device: the discriminator's `loss` and all terms of both.
        """
        data = self.data_preprocessor(data, True)
        if isinstance(data["inputs"], Tensor):
            data["inputs"] = {"img": data["inputs"]}
        wrapper = optim_wrapper["discriminator"]
        with wrapper.optim_context(self.discriminator):
            log_vars = self.train_discriminator(**data, optimizer_wrapper=wrapper)
        # The discriminator is updated once an iteration, so its count is the iterations', also after a resume.
        if wrapper.inner_count % (self.discriminator_steps * wrapper.accumulative_counts) == 0:
            log_vars.update(self._generator_turn(data, optim_wrapper["generator"]))
        return log_vars

    def _generator_turn(self, data: dict, wrapper: Any) -> dict[str, Tensor]:
        steps = self.generator_steps * wrapper.accumulative_counts
        wrapper.initialize_count_status(self.generator, 0, steps)
        turns = []
        with _frozen(self.discriminator):
            for _ in range(steps):
                with wrapper.optim_context(self.generator):
                    turns.append(self.train_generator(**data, optimizer_wrapper=wrapper))
        names = [name for name in turns[0] if name != "loss"]  # that of the discriminator is kept
        return {name: torch.stack([turn[name] for turn in turns]).mean() for name in names}

    def train_discriminator(
        self, inputs: Mapping, data_samples: Any, optimizer_wrapper: Any
    ) -> dict[str, Tensor]:
        """One update of the discriminator: real images against generated ones."""
        real = inputs["img"]
        fake, known = self._generate(len(real), grad=False)
        real_known = self.conditions(data_samples, len(real))
        facts = {
            "disc_pred_fake": self.discriminator(fake, **known),
            "disc_pred_real": self.discriminator(real, **real_known),
            "real_imgs": real,
            "gt_label": real_known.get("label"),
        }
        loss, log_vars = self._get_disc_loss({**self._facts(fake, known), **facts})
        optimizer_wrapper.update_params(loss)
        return log_vars

    def train_generator(
        self, inputs: Mapping, data_samples: Any, optimizer_wrapper: Any
    ) -> dict[str, Tensor]:
        """One update of the generator: its images should pass for real ones."""
        fake, known = self._generate(len(inputs["img"]), grad=True)
        facts = {"disc_pred_fake_g": self.discriminator(fake, **known)}
        loss, log_vars = self._get_gen_loss({**self._facts(fake, known), **facts})
        optimizer_wrapper.update_params(loss)
        return log_vars

    def _generate(self, num_images: int, grad: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Images from fresh noise and conditions, and the conditions."""
        noise = self.noise_fn(num_batches=num_images)
        known = self.conditions(None, num_images)
        with torch.set_grad_enabled(grad):
            return self.generator(noise=noise, **known), known

    def _facts(self, fake: Tensor, known: Mapping[str, Tensor]) -> dict[str, Any]:
        """What auxiliary losses may want to know."""
        return {
            "gen": self.generator,
            "disc": self.discriminator,
            "fake_imgs": fake,
            "batch_size": len(fake),
            "fake_label": known.get("label"),
        }

    def _get_disc_loss(self, out_dict: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's losses from everything at hand: total and parts."""
        gan_loss = self._needed_loss()
        losses = {
            "loss_disc_fake": gan_loss(
                out_dict["disc_pred_fake"], target_is_real=False, is_disc=True
            ),
            "loss_disc_real": gan_loss(
                out_dict["disc_pred_real"], target_is_real=True, is_disc=True
            ),
        }
        return self._add_up(losses, self.disc_auxiliary_losses, out_dict)

    def _get_gen_loss(self, out_dict: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """The generator's losses from everything at hand: total and parts."""
        loss = self._needed_loss()(out_dict["disc_pred_fake_g"], target_is_real=True, is_disc=False)
        return self._add_up({"loss_disc_fake_g": loss}, self.gen_auxiliary_losses, out_dict)

    def _add_up(
        self, losses: dict[str, Tensor], auxiliary: nn.ModuleList, out_dict: dict
    ) -> tuple[Tensor, dict[str, Tensor]]:
        for module in auxiliary:
            value = module(out_dict)
            if value is not None:  # it sits some iterations out
                name = module.loss_name()  # type: ignore[operator]
                losses[name] = losses[name] + value if name in losses else value
        return self.parse_losses(losses)

    # ---- parts ---------------------------------------------------------------------------------

    def _build(self, name: str, part: Part, **defaults: Any) -> nn.Module:
        return MODELS.build(part, path=name, **defaults)

    def _loss(self, name: str) -> nn.Module | None:
        cfg = self.loss_config.get(name)
        return None if cfg is None else MODELS.build(cfg, path=f"loss_config.{name}")

    def _losses(self, name: str) -> nn.ModuleList:
        given = self.loss_config.get(name) or []
        given = given if isinstance(given, (list, tuple)) else [given]
        return nn.ModuleList(MODELS.build(cfg, path=f"loss_config.{name}") for cfg in given)

    def _needed_loss(self) -> nn.Module:
        if self.gan_loss is None:
            raise ConfigError(
                "model.loss_config.gan_loss", "missing: dict(type='GANLoss', gan_type='hinge')"
            )
        return self.gan_loss


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for a module's parameters inside; those that were frozen before stay so."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _num_images(options: Mapping, data_samples: Any) -> int:
    """How many images are asked for; everything that says so has to agree."""
    counts = {key: len(value) for key, value in options.items() if isinstance(value, Tensor)}
    if options.get("num_batches") is not None:
        counts["num_batches"] = int(options["num_batches"])
    if not counts and data_samples is not None:
        counts["data_samples"] = len(data_samples)
    if len(set(counts.values())) != 1:
        raise ValueError(
            f"expected inputs to say how many images to generate, got {counts or 'nothing'} (hint: num_batches, noise)"
        )
    return next(iter(counts.values()))
