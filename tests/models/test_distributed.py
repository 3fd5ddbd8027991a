"""MMDistributedDataParallel: two processes with half a batch each against one with the whole."""

# SPDX-License-Identifier: Apache-2.0

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from segfast.models import BaseModel, MMDistributedDataParallel
from segfast.runner import OptimWrapper

BATCHES, ROWS = 5, 4
COUNTS = (1, 2)


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(3, 1)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        out = self.layer(inputs).squeeze(1)
        if mode == "loss":
            return {"loss_fit": (out - data_samples).square(), "bias": self.layer.bias}
        return [out] if mode == "predict" else out


def data(rows=slice(None)):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(BATCHES, ROWS, 3, generator=generator)
    return [{"inputs": batch[rows], "data_samples": batch.sum(1)[rows]} for batch in x]


def trained(model, batches, accumulative_counts):
    """The parameters after every step, the log of the first."""
    optim = OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=0.05), accumulative_counts=accumulative_counts
    )
    optim.initialize_count_status(model, 0, len(batches))
    states, logs = [], []
    for batch in batches:
        logs.append({k: v.tolist() for k, v in model.train_step(batch, optim).items()})
        states.append([p.detach().flatten().tolist() for p in model.parameters()])
    return {"states": states, "logs": logs[0]}


def work(rank, store):
    """One of two processes."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    print(json.dumps([work_with(rank, counts) for counts in COUNTS]))
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads outlive the group, and Python's end could end one amid a tensor's


def work_with(rank, accumulative_counts):
    model = MMDistributedDataParallel(Line())
    exchanged = []

    def hook(state, bucket):
        exchanged.append(1)
        gradients = bucket.buffer().div_(2)
        torch.distributed.all_reduce(gradients)
        # A callback on the exchange would be called by gloo's thread, even while Python ends.
        done = torch.futures.Future()
        done.set_result(gradients)
        return done

    model.register_comm_hook(None, hook)
    half = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    found = trained(model, data(half), accumulative_counts)
    found["exchanges"] = len(exchanged)
    steps = (model.val_step, model.test_step)
    found["predictions"] = [step(data()[0])[0].tolist() for step in steps]
    found["exchanges_of_predictions"] = len(exchanged) - found["exchanges"]
    return found


def test_two_processes_train_as_one(tmp_path):
    tests, store = str(Path(__file__).parent), str(tmp_path / "store")
    code = f"import sys; sys.path.insert(0, {tests!r}); import test_distributed as t; t.work"
    workers = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", f"{code}({rank}, {store!r})"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=240) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs[0][1] + outputs[1][1]
    found = [json.loads(out.splitlines()[-1]) for out, _ in outputs]
    for i, counts in enumerate(COUNTS):
        check([part[i] for part in found], counts)


def check(found, counts):
    model = Line()
    alone = trained(model, data(), counts)
    predicted = model.val_step(data()[0])[0].tolist()
    for part in found:
        for step, expected in zip(part["states"], alone["states"], strict=True):
            for actual, wanted in zip(step, expected, strict=True):
                assert actual == pytest.approx(wanted, abs=1e-6)
        assert list(part["logs"]) == ["loss", "loss_fit", "bias"]
        assert part["exchanges"] == -(-BATCHES // counts)  # none between the optimiser's steps
        assert part["exchanges_of_predictions"] == 0
        for actual in part["predictions"]:
            assert actual == pytest.approx(predicted, abs=1e-6)
    losses = [part["logs"]["loss"] for part in found]
    assert sum(losses) / 2 == pytest.approx(alone["logs"]["loss"], abs=1e-6)
    assert losses[0] != losses[1]  # each process logs its own
