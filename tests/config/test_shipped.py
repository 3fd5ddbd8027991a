"""The shipped configs load, and their variables reach what is computed from them, also in bases."""

# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import pytest

from segfast.config import load_config
from segfast.runner.defaults import with_defaults

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_shipped_configs(path):
    cfg = with_defaults(load_config(path, {"data_root": "/somewhere", "max_iters": 40}))
    for loader in ("train_dataloader", "val_dataloader"):
        assert cfg[loader]["dataset"]["data_root"] == "/somewhere"
    assert cfg["train_cfg"]["max_iters"] == 40
    assert cfg["model"]["type"] == "Segmentor"
    assert cfg["model"]["num_classes"] == len(
        cfg["train_dataloader"]["dataset"]["metainfo"]["classes"]
    )
    assert cfg["optim_wrapper"]["optimizer"]["type"] == "AdamW"
    assert cfg["optim_wrapper"]["optimizer"]["lr"] in (1e-3, 2e-3)
    assert cfg["default_hooks"]["checkpoint"]["interval"] == cfg["train_cfg"]["val_interval"]
