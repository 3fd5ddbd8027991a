"""GANs: whose turn it is, which gradients flow, what is sampled."""

# SPDX-License-Identifier: Apache-2.0

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from segfast.errors import ConfigError
from segfast.models import BaseConditionalGAN, BaseGAN
from segfast.registry import MODELS
from segfast.runner import OptimWrapper, OptimWrapperDict
from segfast.structures import DataSample


class Generator(nn.Module):
    def __init__(self, noise_size=4, num_classes=3):
        super().__init__()
        self.noise_size, self.num_classes = noise_size, num_classes
        self.embed = nn.Embedding(num_classes, noise_size)
        self.layer = nn.Linear(noise_size, 3 * 2 * 2)

    def forward(self, noise, label=None, scale=1.0):
        if label is not None:
            noise = noise + self.embed(label)
        return self.layer(noise).view(-1, 3, 2, 2) * scale


class Discriminator(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.num_classes = num_classes
        self.layer = nn.Linear(12, num_classes)
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.seen = []

    def forward(self, images, label=None):
        self.seen.append((images.requires_grad, self.layer.weight.requires_grad, label))
        scores = self.layer(images.flatten(1))
        return scores[:, 0] if label is None else scores.gather(1, label[:, None])[:, 0]


LOSSES = {"gan_loss": {"type": "GANLoss", "gan_type": "hinge"}}


def gan(kind=BaseConditionalGAN, **options):
    options = {"loss_config": LOSSES, **options}
    return kind(Generator(), Discriminator(), **options)


def wrappers(model, **options):
    return OptimWrapperDict(
        **{
            name: OptimWrapper(
                torch.optim.SGD(getattr(model, name).parameters(), lr=0.1), **options
            )
            for name in ("generator", "discriminator")
        }
    )


def batch(count=2, labels=True):
    samples = [DataSample() for _ in range(count)]
    for i, sample in enumerate(samples):
        if labels:
            sample.set_gt_label(i)
    images = [torch.randint(0, 256, (3, 2, 2), dtype=torch.uint8) for _ in samples]
    return {"inputs": [{"img": image} for image in images], "data_samples": samples}


def test_a_step_updates_both_and_keeps_their_gradients_apart():
    model = gan()
    before = {name: p.clone() for name, p in model.named_parameters()}
    log_vars = model.train_step(batch(), wrappers(model))
    assert set(log_vars) == {"loss", "loss_disc_fake", "loss_disc_real", "loss_disc_fake_g"}
    total = log_vars["loss_disc_fake"] + log_vars["loss_disc_real"]
    assert torch.equal(log_vars["loss"], total)
    changed = {
        n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])
    }
    assert changed == {"generator", "discriminator"}
    (fake, *_), (real, *_), (generated, weight_grad, _) = model.discriminator.seen
    assert (fake, real, generated, weight_grad) == (False, False, True, False)
    assert model.discriminator.layer.weight.requires_grad
    assert not model.discriminator.frozen.requires_grad  # as it was


def test_labels_are_the_samples_or_random():
    model = gan()
    model.train_step(batch(3), wrappers(model))
    labels = [label for *_, label in model.discriminator.seen]
    assert labels[1].tolist() == [0, 1, 2]
    for label in (labels[0], labels[2]):
        assert label.shape == (3,)
        assert label.dtype == torch.int64
    with pytest.raises(AssertionError, match="no gt_label"):
        model.train_step(batch(labels=False), wrappers(model))
    model = gan(BaseGAN)
    model.train_step(batch(labels=False), wrappers(model))
    assert all(label is None for *_, label in model.discriminator.seen)


@pytest.mark.parametrize(
    ("steps", "counts", "turns"),
    [
        ((1, 1), 1, [1] * 6),
        ((1, 3), 1, [0, 0, 1, 0, 0, 1]),
        ((2, 1), 1, [2] * 6),
        ((1, 2), 2, [0, 0, 0, 2] * 2),
    ],
)
def test_whose_turn_it_is(steps, counts, turns):
    model = gan(generator_steps=steps[0], discriminator_steps=steps[1])
    optim = wrappers(model, accumulative_counts=counts)
    optim.initialize_count_status(model, 0, 100)
    done = []
    for _ in turns:
        before = len(model.discriminator.seen)
        weight = model.generator.layer.weight.clone()
        logs = model.train_step(batch(), optim)
        done.append(len(model.discriminator.seen) - before - 2)
        assert ("loss_disc_fake_g" in logs) == bool(done[-1])
        assert torch.equal(weight, model.generator.layer.weight) != bool(done[-1])
        assert model.generator.layer.weight.grad is None  # a turn ends with an update
    assert done == turns


def test_a_resumed_run_goes_on_with_the_same_turns():
    model = gan(discriminator_steps=3)
    optim = wrappers(model)
    optim.initialize_count_status(model, 2, 100)  # two iterations were done
    assert "loss_disc_fake_g" in model.train_step(batch(), optim)
    assert "loss_disc_fake_g" not in model.train_step(batch(), optim)


def test_auxiliary_losses():
    class Penalty(nn.Module):
        def __init__(self, name, value):
            super().__init__()
            self.name, self.value = name, value

        def loss_name(self):
            return self.name

        def forward(self, facts):
            assert {"gen", "disc", "fake_imgs", "batch_size", "fake_label"} <= set(facts)
            return None if self.value is None else facts["fake_imgs"].new_tensor(self.value)

    config = LOSSES | {
        "disc_auxiliary_loss": Penalty("loss_r1", 2.0),
        "gen_auxiliary_loss": [Penalty("loss_p", 1.0), Penalty("loss_p", 4.0), Penalty("no", None)],
    }
    model = gan(loss_config=config)
    logs = model.train_step(batch(), wrappers(model))
    assert logs["loss_r1"].item() == 2
    assert logs["loss_p"].item() == 5
    assert "no" not in logs
    parts = logs["loss_disc_fake"] + logs["loss_disc_real"] + 2
    torch.testing.assert_close(logs["loss"], parts)


def test_sampling():
    model = gan()
    samples = model(torch.zeros(2, 4), mode="tensor")
    assert [sample.fake_img.shape for sample in samples] == [(3, 2, 2)] * 2
    assert samples[0].gt_label.label.ndim == 0
    samples = model.test_step(batch(3))
    assert [int(sample.gt_label.label) for sample in samples] == [0, 1, 2]
    assert all(sample.fake_img.min() >= 0 and sample.fake_img.max() <= 255 for sample in samples)
    assert samples[0].gt_img.shape == (3, 2, 2)
    out = model.val_step({"inputs": {"num_batches": 2, "sample_kwargs": {"scale": 0.0}}})
    assert out[1].fake_img.unique().tolist() == [127.5]
    assert out[1].sample_kwargs == {"scale": 0.0}
    for bad in ({}, {"num_batches": 2, "noise": torch.zeros(3, 4)}):
        with pytest.raises(ValueError, match="how many images"):
            model(bad)


def test_noise_and_labels_by_hand():
    model = gan()
    assert model.noise_fn(torch.ones(4)).shape == (1, 4)
    assert model.noise_fn(torch.zeros, num_batches=3).shape == (3, 4)
    assert model.noise_fn(num_batches=3).std() > 0
    with pytest.raises(AssertionError, match=r"expected noise \(N, 4\), got \(2, 5\)"):
        model.noise_fn(torch.zeros(2, 5))
    assert model.label_fn([2, 0]).tolist() == [2, 0]
    assert model.label_fn(lambda n: torch.arange(n), num_batches=2).tolist() == [0, 1]
    with pytest.raises(AssertionError, match="int64"):
        model.label_fn([0.5])


def test_parts_agree_and_are_built():
    cfg = {
        "type": "BaseConditionalGAN", "generator": {"type": Generator}, "discriminator": {"type": Discriminator},
        "noise_size": 6, "num_classes": 5, "loss_config": LOSSES,
    }  # fmt: skip
    model = MODELS.build(cfg)
    assert (model.noise_size, model.num_classes) == (6, 5)
    assert model.generator.embed.weight.shape == (5, 6)
    assert model.discriminator.num_classes == 5
    assert BaseConditionalGAN(Generator(num_classes=7)).num_classes == 7
    with pytest.raises(ConfigError, match=r"expected one num_classes, got .*5.*3"):
        MODELS.build(cfg | {"generator": {"type": Generator, "num_classes": 3}})
    model = gan(loss_config=None)
    with pytest.raises(ConfigError, match=r"loss_config.gan_loss: missing"):
        model.train_step(batch(), wrappers(model))


def test_steps_written_for_mmagic():
    """A subclass that trains its discriminator by hand."""

    class Own(BaseConditionalGAN):
        def train_discriminator(self, inputs, data_samples, optimizer_wrapper):
            scores = self.discriminator(inputs["img"], label=data_samples.gt_label.label[:, 0])
            loss, log_vars = self.parse_losses({"loss_own": -scores.mean()})
            optimizer_wrapper.update_params(loss)
            return log_vars

    model = Own(Generator(), Discriminator(), loss_config=LOSSES)
    logs = model.train_step(batch(), wrappers(model))
    assert list(logs) == ["loss", "loss_own", "loss_disc_fake_g"]


def test_the_context_of_each_optimiser_surrounds_its_turn():
    entered = []

    class Recording(OptimWrapper):
        def optim_context(self, model):
            entered.append(type(model).__name__)
            return nullcontext()

    model = gan()
    parts = {
        name: Recording(torch.optim.SGD(getattr(model, name).parameters(), lr=0.1))
        for name in ("generator", "discriminator")
    }
    model.train_step(batch(), OptimWrapperDict(**parts))
    assert entered == ["Discriminator", "Generator"]
