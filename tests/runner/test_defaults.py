"""What a config may leave out, and what a partial one becomes."""

# SPDX-License-Identifier: Apache-2.0

import pytest

from segfast.models import EncoderDecoder, Segmentor
from segfast.runner.defaults import with_defaults

DATA = {"train_dataloader": {"dataset": {"type": "ShapesDataset"}}}


def test_the_schedule_is_mmsegs():
    cfg = with_defaults({**DATA, "model": {"type": "Segmentor"}})
    assert cfg["train_cfg"] == {
        "type": "IterBasedTrainLoop",
        "max_iters": 20000,
        "val_interval": 2000,
    }
    assert cfg["optim_wrapper"]["optimizer"] == {
        "type": "SGD",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 0.0005,
    }
    assert cfg["param_scheduler"] == [
        {"type": "PolyLR", "power": 0.9, "eta_min": 1e-4, "by_epoch": False}
    ]
    assert cfg["model"]["data_preprocessor"]["bgr_to_rgb"] is True
    assert cfg["default_hooks"]["checkpoint"] == {"interval": 2000, "by_epoch": False}


@pytest.mark.parametrize(("given", "expected"), [
    ({"max_iters": 50}, {"type": "IterBasedTrainLoop", "max_iters": 50, "val_interval": 5}),
    ({"val_interval": 7}, {"type": "IterBasedTrainLoop", "max_iters": 20000, "val_interval": 7}),
    ({"max_epochs": 3}, {"type": "EpochBasedTrainLoop", "max_epochs": 3}),
    ({"by_epoch": True, "max_epochs": 3}, {"type": "EpochBasedTrainLoop", "max_epochs": 3}),
    ({"by_epoch": False, "max_iters": 5}, {"type": "IterBasedTrainLoop", "max_iters": 5, "val_interval": 1}),
    ({"type": "my.Loop", "max_iters": 5}, {"type": "my.Loop", "max_iters": 5}),
])  # fmt: skip
def test_train_cfg(given, expected):
    assert with_defaults({**DATA, "train_cfg": given})["train_cfg"] == expected


def test_checkpoints_count_as_the_loop_counts():
    cfg = with_defaults({**DATA, "train_cfg": {"max_epochs": 3, "val_interval": 2}})
    assert cfg["default_hooks"]["checkpoint"] == {"interval": 2, "by_epoch": True}
    for change in (None, {"interval": 5, "by_epoch": False}):
        cfg = with_defaults({**DATA, "default_hooks": {"checkpoint": change}})
        assert cfg["default_hooks"]["checkpoint"] == change


def test_a_partial_optimiser_is_completed():
    """`--amp` or `optim_wrapper.optimizer.lr=...` on a config that has no optim_wrapper."""
    cfg = with_defaults({**DATA, "optim_wrapper": {"type": "AmpOptimWrapper"}})
    assert cfg["optim_wrapper"]["type"] == "AmpOptimWrapper"
    assert cfg["optim_wrapper"]["optimizer"]["type"] == "SGD"
    cfg = with_defaults({**DATA, "optim_wrapper": {"optimizer": {"lr": 0.5}}})
    assert cfg["optim_wrapper"]["optimizer"]["lr"] == 0.5
    assert cfg["optim_wrapper"]["optimizer"]["momentum"] == 0.9
    cfg = with_defaults({**DATA, "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 6e-5}}})
    assert cfg["optim_wrapper"]["optimizer"] == {"type": "AdamW", "lr": 6e-5}
    assert cfg["param_scheduler"][0]["eta_min"] == pytest.approx(6e-7)  # never above lr


def test_groups_without_data_are_dropped_and_others_completed():
    cfg = with_defaults({"val_cfg": {}, "test_dataloader": {"dataset": 1}, "train_cfg": None})
    assert "val_cfg" not in cfg
    assert cfg["test_cfg"] == {"type": "TestLoop"}
    assert cfg["test_evaluator"] == {"type": "IoUMetric"}
    assert "optim_wrapper" not in cfg


def test_the_callers_config_is_left_alone():
    source = {"train_dataloader": {"dataset": {}}, "model": {"type": "Segmentor"}}
    with_defaults(source)
    assert source == {"train_dataloader": {"dataset": {}}, "model": {"type": "Segmentor"}}


@pytest.mark.parametrize("kind", ["Segmentor", "EncoderDecoder", "CascadeEncoderDecoder"])
def test_a_segmentor_without_preprocessor_gets_imagenets(kind):
    model = with_defaults({**DATA, "model": {"type": kind}})["model"]
    assert model["data_preprocessor"]["type"] == "SegDataPreProcessor"
    assert "data_preprocessor" not in with_defaults({**DATA, "model": {"type": "Home"}})["model"]


class OwnSegmentor(Segmentor):
    """A class of one's own."""


@pytest.mark.parametrize("kind", ["Segmentor", Segmentor, OwnSegmentor, EncoderDecoder])
def test_segmentors_see_normalised_images_however_they_are_named(kind):
    model = with_defaults({"model": {"type": kind}})["model"]
    assert model["data_preprocessor"]["type"] == "SegDataPreProcessor"
    assert "data_preprocessor" not in with_defaults({"model": {"type": "BaseEditModel"}})["model"]
