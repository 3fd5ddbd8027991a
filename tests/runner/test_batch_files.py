"""Naming the images of a batch: the sampler is asked again, and whatever a data set's list holds."""

# SPDX-License-Identifier: Apache-2.0

import os

import pytest
from runner.test_faults import spoilt_config
from runner.toys import ToyData, toy_config

from segfast.runner import Hook, Runner
from segfast.runner.faults import batch_files
from segfast.runner.nonfinite import NonFiniteLossError


@pytest.mark.parametrize("sampler", ["InfiniteSampler", "DefaultSampler"])
def test_a_sampler_asked_again_is_left_alone(tmp_path, sampler):
    """Naming the files of a batch must not move what training goes on with."""

    class Asking(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            assert len(batch_files(runner, runner.iter)) == 4

    loader = {"batch_size": 4, "dataset": {"type": ToyData}, "sampler": {"type": sampler}}
    orders = []
    for name, hooks in (("a", []), ("b", [Asking()])):
        runner = Runner.from_cfg(
            toy_config(tmp_path / name, train_dataloader=loader, custom_hooks=hooks)
        )
        runner.train()
        orders.append(runner.train_dataloader.dataset.seen)
    assert orders[0] == orders[1]


class Listed(ToyData):
    """A data set of somebody else, whose list holds what it likes."""

    def __init__(self, entry):
        super().__init__()
        self.data_list = [entry] * self.size


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (("a.png", "b.png"), "sample "),
        ({"img_path": os.fsdecode(b"caf\xe9.png")}, "caf\udce9.png"),
    ],
)
def test_the_message_survives_strange_lists_and_names(tmp_path, entry, told):
    loader = {"batch_size": 4, "dataset": {"type": Listed, "entry": entry}}
    with pytest.raises(NonFiniteLossError) as caught:
        Runner.from_cfg(spoilt_config(tmp_path, (8,), train_dataloader=loader)).train()
    assert told in str(caught.value)
    assert (tmp_path / "nonfinite_iter_8.pth").is_file()
    assert "in the batch of iteration 8: " in (tmp_path / "log.txt").read_text()
