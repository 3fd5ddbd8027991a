"""A training iteration and a validation batch never wait for the device; autocast and torch.compile go through."""

# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from calls import CALLS, Sizes, placed
from helpers import DEVICES
from surroundings import no_waiting

from segfast.datasets import ShapesDataset, pseudo_collate
from segfast.evaluation import Evaluator, IoUMetric
from segfast.models import Segmentor, SegNetS
from segfast.ops import check_labels, upsample_cross_entropy
from segfast.runner import AmpOptimWrapper, OptimWrapper

SIZES = Sizes(N=2, C=7, small=(9, 11), size=(35, 41))


@pytest.fixture
def batch():
    dataset = ShapesDataset(num_images=4)
    return pseudo_collate([dataset[i] for i in range(4)]), dataset.metainfo


def on_device(model, batch):
    """The batch where the model is: copying it there is not what these tests look at."""
    return model.data_preprocessor.cast_data(batch)


def make_model(metainfo, device):
    preprocessor = {"type": "SegDataPreProcessor", "mean": [120.0] * 3, "std": [60.0] * 3}
    num_classes = len(metainfo["classes"])
    net = SegNetS(num_classes, width=8)
    return Segmentor(net, num_classes=num_classes, data_preprocessor=preprocessor).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mixed", [False, True])
def test_training_iterations(batch, device, mixed):
    collated, metainfo = batch
    model = make_model(metainfo, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    # bfloat16: float16's loss scale is read on the host after every step, by torch
    optim = AmpOptimWrapper(optimizer, dtype="bfloat16") if mixed else OptimWrapper(optimizer)
    data = on_device(model, collated)
    for _ in range(3):
        model.train_step(data, optim)
    with no_waiting(device):
        logs = [model.train_step(data, optim) for _ in range(2)]
    check_labels()
    assert logs[-1]["loss"].device.type == device
    assert all(log["loss"].isfinite() for log in logs)


@pytest.mark.parametrize("device", DEVICES)
def test_validation_batches(batch, device):
    collated, metainfo = batch
    model = make_model(metainfo, device).eval()
    evaluator = Evaluator(IoUMetric())
    evaluator.dataset_meta = metainfo
    data = on_device(model, collated)

    def validate():
        with torch.no_grad():
            evaluator.process(data_samples=model.val_step(data), data_batch=data)

    validate()
    with no_waiting(device):
        validate()
    assert 0 <= evaluator.evaluate(8)["mIoU"] <= 100


@pytest.mark.parametrize("device", DEVICES)
def test_autocast(device):
    conv = torch.nn.Conv2d(3, 7, 1).to(device)
    images = torch.randn(2, 3, 9, 11, device=device)
    target = torch.randint(7, (2, 35, 41), dtype=torch.uint8, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        logits = conv(images)
        loss = upsample_cross_entropy(logits, target)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    expected = upsample_cross_entropy(logits.detach().float(), target)
    torch.testing.assert_close(loss.detach(), expected)
    assert conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("call", CALLS, ids=repr)
def test_compile(call, device):
    """One graph, with the fakes' shapes and strides; the gradient as well."""
    torch._dynamo.reset()
    inputs = placed(call.draw(SIZES), device)
    compiled = torch.compile(call.op, fullgraph=True, backend="aot_eager")
    actual, expected = call.run(inputs, compiled), call.run(inputs)
    call.compare(actual, expected, inputs)
    assert [t.stride() for t in actual] == [t.stride() for t in expected]


@pytest.mark.cuda
def test_inductor():
    torch._dynamo.reset()
    call = next(c for c in CALLS if c.name == "upsample_cross_entropy")
    inputs = placed(call.draw(SIZES), "cuda")
    compiled = torch.compile(call.op, fullgraph=True)
    call.compare(call.run(inputs, compiled), call.run(inputs), inputs)
