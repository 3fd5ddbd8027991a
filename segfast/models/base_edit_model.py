"""BaseEditModel: an image goes in, an image comes out."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from segfast.models.base import BaseModel
from segfast.registry import MODELS
from segfast.structures import DataSample


@MODELS.register_module()
class BaseEditModel(BaseModel):
    """Restoration and the like: a generator, a loss per pixel, predictions in pixels.

    `data_preprocessor` has to undo what it does, as `DataPreprocessor` does, and to stack samples.

    Args:
        generator: maps (N, C, H, W) to an image; a module or its config.
        pixel_loss: f(prediction, truth) -> 0-d; a module or its config.
        train_cfg: kept for subclasses.
        test_cfg: kept for subclasses.
        init_cfg: see `BaseModel`.
        data_preprocessor: a module, its config, or None for `DataPreprocessor` with its defaults.
    """

    data_preprocessor: Any  # has `destruct`

    def __init__(
        self,
        generator: Mapping | nn.Module,
        pixel_loss: Mapping | nn.Module,
        train_cfg: Mapping | None = None,
        test_cfg: Mapping | None = None,
        init_cfg: Mapping | None = None,
        data_preprocessor: Mapping | nn.Module | None = None,
    ) -> None:
        """Build the parts."""
        if data_preprocessor is None:
            data_preprocessor = {"type": "DataPreprocessor"}
        super().__init__(data_preprocessor, init_cfg)
        self.train_cfg, self.test_cfg = train_cfg, test_cfg
        self.generator = MODELS.build(generator, path="generator")
        self.pixel_loss = MODELS.build(pixel_loss, path="pixel_loss")

    def forward(
        self,
        inputs: Tensor | Mapping[str, Tensor],
        data_samples: DataSample | None = None,
        mode: str = "tensor",
        **kwargs: Any,
    ) -> Any:
        """Answer in one of three modes.

        Args:
            inputs: (N, C, H, W), normalised, or a dict with that as `img`.
            data_samples: the stacked samples.
            mode: "tensor" -> the generator's output. "predict" -> list of N samples with `output.pred_img`, BGR in
                [0, 255] like `gt_img`, and `input`. "loss" -> dict of losses.
            kwargs: handed to the generator.

        Raises:
            ValueError: another mode.
        """
        images = inputs["img"] if isinstance(inputs, Mapping) else inputs
        if mode == "tensor":
            return self.forward_tensor(images, data_samples, **kwargs)
        if mode == "loss":
            return self.forward_train(images, data_samples, **kwargs)
        if mode == "predict":
            predictions = self.forward_inference(images, data_samples, **kwargs)
            return self.convert_to_datasample(predictions, data_samples, images)
        raise ValueError(f"expected mode 'loss', 'predict' or 'tensor', got {mode!r}")

    def forward_tensor(
        self, inputs: Tensor, data_samples: DataSample | None = None, **kwargs: Any
    ) -> Any:
        """The generator's output, normalised."""
        return self.generator(inputs, **kwargs)

    def forward_train(
        self, inputs: Tensor, data_samples: DataSample | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """The losses against `data_samples.gt_img`."""
        truth = None if data_samples is None else data_samples.get("gt_img")
        assert truth is not None, (
            "data_samples with gt_img are needed in training (hint: put gt among the pipeline's results)"
        )
        outputs = self.forward_tensor(inputs, data_samples, **kwargs)
        return {"loss": self.pixel_loss(outputs, truth)}

    def forward_inference(
        self, inputs: Tensor, data_samples: DataSample | None = None, **kwargs: Any
    ) -> DataSample:
        """A stacked sample with `pred_img` in pixels; it stays on the device."""
        outputs = self.forward_tensor(inputs, data_samples, **kwargs)
        return DataSample(pred_img=self._pixels(outputs, data_samples))

    def convert_to_datasample(
        self, predictions: DataSample, data_samples: DataSample | None, inputs: Tensor | None
    ) -> list[DataSample]:
        """One sample per image.

        Args:
            predictions: stacked.
            data_samples: stacked, or None; its samples receive the prediction as `output`.
            inputs: the generator's input, which they receive in pixels as `input`; None for none.
        """
        data_samples = DataSample() if data_samples is None else data_samples
        if inputs is not None:
            data_samples.set_data({"input": self._pixels(inputs, data_samples)})
        samples = data_samples.split()
        for sample, prediction in zip(samples, predictions.split(), strict=True):
            sample.set_data({"output": prediction})
        return samples

    def _pixels(self, images: Tensor, data_samples: DataSample | None) -> Any:
        """Denormalised and unpadded; a list where the images of the batch were padded differently."""
        sizes = None if data_samples is None else data_samples.get("padding_size")
        alike = not isinstance(sizes, list) or all(sizes[0].equal(size) for size in sizes)
        options = {} if alike else {"same_padding": False}
        return self.data_preprocessor.destruct(images, data_samples, "img", **options)
