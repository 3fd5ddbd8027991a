"""SegFormer's loss and the Trainer's metrics beside the package's own, on tiny random models."""

# SPDX-License-Identifier: Apache-2.0
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import transformers

from segfast.errors import UserError
from segfast.evaluation import IoUMetric
from segfast.integrations.transformers import SegmentationMetrics, segmentation_loss

CLASSES = 4


def segformer(num_labels=CLASSES):
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_labels=num_labels, depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=16,
        num_attention_heads=[1, 1, 2, 2], hidden_dropout_prob=0.0, classifier_dropout_prob=0.0, drop_path_rate=0.0,
    )  # fmt: skip
    return transformers.SegformerForSemanticSegmentation(config)


class Scenes(torch.utils.data.Dataset):
    """Random images whose class is their brightness; a fifth of the pixels is void."""

    def __init__(self, count=6):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        labels = torch.randint(0, CLASSES, (8, 8), generator=generator).repeat_interleave(8, 0)
        labels = labels.repeat_interleave(8, 1)
        images = labels.float().expand(3, -1, -1) + 0.1
        labels = labels.clone()
        labels[torch.rand(64, 64, generator=generator) < 0.2] = 255
        return {"pixel_values": images, "labels": labels}


@pytest.mark.parametrize("num_labels", [CLASSES, 1])
def test_loss_is_segformers_own(num_labels):
    model = segformer(num_labels)
    batch = Scenes()[0]
    images = batch["pixel_values"][None]
    labels = batch["labels"][None].clone()
    if num_labels == 1:
        labels = torch.where(labels == 255, 255, labels % 2)
    model(images, labels=labels).loss.backward()
    expected = model(images, labels=labels).loss.item(), model.decode_head.classifier.weight.grad
    model.decode_head.classifier.weight.grad = None
    loss = segmentation_loss(model(images), labels)
    loss.backward()
    assert loss.item() == pytest.approx(expected[0], rel=1e-5)
    torch.testing.assert_close(
        model.decode_head.classifier.weight.grad, expected[1], rtol=1e-4, atol=1e-6
    )


def test_loss_reads_mappings_tuples_and_tensors():
    logits, labels = torch.randn(1, CLASSES, 4, 4), torch.randint(0, CLASSES, (1, 16, 16))
    expected = segmentation_loss(logits, labels)
    for outputs in ({"logits": logits}, (logits, "hidden"), SimpleNamespace(logits=logits)):
        assert segmentation_loss(outputs, labels) == expected
    with pytest.raises(UserError, match="expected logits"):
        segmentation_loss({"last_hidden_state": logits}, labels)


@pytest.fixture(autouse=True)
def _no_hugging_face_datasets(monkeypatch):
    """pytest puts tests/ on the path, and tests/datasets is not the package of that name."""
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)


def trainer(tmp_path, metrics=None, train=None, **options):
    pytest.importorskip("accelerate")
    args = {
        "output_dir": str(tmp_path), "report_to": [], "remove_unused_columns": False, "use_cpu": True,
        "per_device_train_batch_size": 2, "per_device_eval_batch_size": 4, "logging_steps": 1, "save_strategy": "no",
        "learning_rate": 1e-2, "num_train_epochs": 1, "disable_tqdm": True, "seed": 1,
    }  # fmt: skip
    metrics = metrics or SegmentationMetrics()
    loss = options.pop("loss", segmentation_loss)
    return transformers.Trainer(
        model=segformer(),
        args=transformers.TrainingArguments(**args | options),
        train_dataset=Scenes(8),
        eval_dataset=Scenes(6),
        compute_loss_func=loss,
        compute_metrics=metrics,
        preprocess_logits_for_metrics=metrics.preprocess_logits,
    )


def losses_of(run):
    run.train()
    return [line["loss"] for line in run.state.log_history if "loss" in line]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_trainer_takes_the_steps_it_takes_with_segformers_loss(tmp_path, accumulation):
    runs = [
        trainer(tmp_path, loss=loss, gradient_accumulation_steps=accumulation)
        for loss in (segmentation_loss, None)
    ]
    # SegFormer ignores num_items_in_batch, but transformers 5.23 believes that it divides by it
    runs[1].loss_is_scaled_for_ga = False
    ours, own = map(losses_of, runs)
    assert len(ours) == 4 // accumulation
    assert ours == pytest.approx(own, rel=1e-4)


@pytest.mark.parametrize("batch_eval_metrics", [False, True])
def test_trainer_evaluates(tmp_path, batch_eval_metrics):
    metrics = SegmentationMetrics(class_names=list("abcd"))
    run = trainer(tmp_path, metrics, batch_eval_metrics=batch_eval_metrics)
    scores = run.evaluate()
    reference = IoUMetric()
    reference.dataset_meta = {"classes": list("abcd")}
    model = run.model.eval()
    for scene in (Scenes()[i] for i in range(6)):
        with torch.no_grad():
            logits = model(scene["pixel_values"][None]).logits
        full = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear")
        sample = {
            "pred_sem_seg": {"data": full.argmax(1)},
            "gt_sem_seg": {"data": scene["labels"][None]},
        }
        reference.process(None, [sample])
    expected = reference.evaluate(6)
    for name, key in (
        ("mean_iou", "mIoU"),
        ("mean_accuracy", "mAcc"),
        ("overall_accuracy", "aAcc"),
    ):
        assert 100 * scores[f"eval_{name}"] == pytest.approx(expected[key], abs=0.01)
    assert {"eval_iou_a", "eval_iou_d"} <= set(scores)
    assert run.evaluate()["eval_mean_iou"] == scores["eval_mean_iou"]  # nothing is left over


def test_other_ignored_labels():
    logits, labels = torch.randn(1, CLASSES, 4, 4), torch.randint(0, CLASSES, (1, 16, 16))
    marked = torch.where(labels == 0, 9, labels)
    loss = partial(segmentation_loss, ignore_index=0)(logits, labels)
    assert loss == segmentation_loss(logits, marked, ignore_index=9)
    counts = SegmentationMetrics(ignore_index=0).preprocess_logits(logits, labels)
    assert counts.shape == (1, CLASSES, 3)
    assert counts[0, 0, 2] == 0
    assert counts[0, :, 2].sum() == (labels != 0).sum()


def test_metrics_refuse_logits():
    with pytest.raises(
        UserError, match=r"preprocess_logits_for_metrics=metrics\.preprocess_logits"
    ):
        SegmentationMetrics()(SimpleNamespace(predictions=np.zeros((2, 4, 8, 8))))
