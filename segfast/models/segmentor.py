"""Segmentor: makes any network that maps images to logits trainable, whatever its stride."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from segfast.errors import LabelError, UserError
from segfast.models.base_segmentor import BaseSegmentor
from segfast.models.encoder_weights import load_encoder_weights
from segfast.models.inference_cfg import checked_test_cfg
from segfast.models.mixed_labels import over_labels
from segfast.models.named_losses import name_bad_label, named_losses, stack_labels
from segfast.registry import MODELS
from segfast.structures import SegDataSample

_CROSS_ENTROPY: Mapping = MappingProxyType({"type": "CrossEntropyLoss"})
_PREPROCESSOR: Mapping = MappingProxyType({"type": "SegDataPreProcessor"})
_AUX_WEIGHT = 0.4  # torchvision's choice for its auxiliary heads


@MODELS.register_module()
class Segmentor(BaseSegmentor):
    """Wraps a network (N, C, H, W) -> logits (N, K, h, w).

    In training the loss reads the logits at the network's own stride against full-size labels: an
    (N, K, H, W) tensor is never made, provided the network does not upsample by itself.

    Args:
        net: a module or its config. It returns a tensor, a mapping with "out" or "logits" (and
            perhaps "aux", a second output whose loss counts 0.4), or an object with `.logits`.
        loss: a module, its config, or a list of them. Losses other than `CrossEntropyLoss` are
            called with upsampled logits and int64 labels, `f(logits, label[, ignore_index=])`.
        num_classes: checked against the network's output channels when given.
        align_corners: of every bilinear resize.
        ignore_index: label that no loss counts.
        encoder_weights: local file of pretrained weights for `net.encoder` or `net.backbone`.
        output: key, attribute or position of the logits in what the network returns.
        data_preprocessor: a module or its config; by default a SegDataPreProcessor that pads and
            stacks without normalising.
        test_cfg: `mode` ("whole", or "slide" with `crop_size`, `stride` and perhaps `gaussian`: see
            `sliding_window.slide`), `keep_logits` (whether samples carry `seg_logits` at the original
            size, all classes: None for everywhere but in validation, True, False), `threshold` (0.5,
            for a single output channel).
        init_cfg: not applied, see `BaseModel`.
    """

    def __init__(
        self,
        net: nn.Module | Mapping,
        loss: nn.Module | Mapping | Sequence = _CROSS_ENTROPY,
        *,
        num_classes: int | None = None,
        align_corners: bool = False,
        ignore_index: int = 255,
        encoder_weights: str | Path | None = None,
        output: str | int | None = None,
        data_preprocessor: nn.Module | Mapping | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        """Build the parts and load the encoder's weights.

        Raises:
            ConfigError: a part's config is wrong, or `test_cfg` has an unknown key or mode.
            CheckpointError: `encoder_weights` cannot be used.
        """
        super().__init__(
            _PREPROCESSOR if data_preprocessor is None else data_preprocessor, init_cfg
        )
        self.net = MODELS.build(net, path="net")
        losses = loss if isinstance(loss, (list, tuple)) else [loss]
        self.losses = nn.ModuleList(MODELS.build(cfg, path="loss") for cfg in losses)
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.ignore_index = ignore_index
        self.output = output
        self.test_cfg = checked_test_cfg(test_cfg, "Segmentor")
        if encoder_weights is not None:
            load_encoder_weights(self.net, encoder_weights)

    @property
    def threshold(self) -> float:
        """Probability above which a one-channel output means class 1."""
        return (self.test_cfg or {}).get("threshold", 0.5)

    def extract_feat(self, inputs: Tensor) -> Any:
        """What the network returns, unchanged."""
        return self.net(inputs)

    def encode_decode(
        self, inputs: Tensor, batch_img_metas: Sequence[Mapping] | None = None
    ) -> Tensor:
        """Images (N, C, H, W) -> logits (N, K, H, W)."""
        return self._resize(self._forward(inputs), inputs.shape[-2:])

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Tensor:
        """Images (N, C, H, W) -> logits (N, K, h, w) at the network's stride."""
        return self._pick(self.net(inputs))

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            inputs: (N, C, H, W).
            data_samples: each with `gt_sem_seg`, data (1, H, W) integer; or (K, H, W) float, soft
                labels; and perhaps a second label map, see `mixed_labels`.

        Returns:
            The losses by name ("loss_ce"), "acc_seg" (1,) percent, and, with an auxiliary output,
            its losses as "aux.loss_ce".

        Raises:
            UserError: `num_classes` and the network's output channels differ.
            LabelError: on the CPU, labels out of range; names the image.
        """
        outputs = self.net(inputs)
        logits = self._pick(outputs)
        self._check_classes(logits)
        labels = stack_labels(data_samples).squeeze(1)
        try:
            losses, acc_seg = over_labels(partial(self._losses, logits), labels, data_samples)
        except LabelError as error:
            channels = logits.shape[1]
            raise name_bad_label(error, channels, data_samples, self.ignore_index) from None
        losses["acc_seg"] = acc_seg
        aux = outputs.get("aux") if isinstance(outputs, Mapping) else None
        if isinstance(aux, Tensor):
            aux_losses, _ = over_labels(partial(self._losses, aux), labels, data_samples)
            losses.update({f"aux.{key}": _AUX_WEIGHT * v for key, v in aux_losses.items()})
        return losses

    def predict(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Classes of every pixel, at the original images' size.

        Args:
            inputs: (N, C, H, W).
            data_samples: see `postprocess_result`; these objects receive the predictions.

        Returns:
            N samples. With `keep_logits` one image at a time is brought to full size; without,
            classes are decided from the network's own logits.
        """
        if (self.test_cfg or {}).get("mode") == "slide":
            rows = self._slide_rows(inputs, self.encode_decode)
            return self.postprocess_rows(rows, inputs.shape[2:], data_samples)
        results = []
        for i, logits in enumerate(self._forward(inputs).split(1)):
            samples = None if data_samples is None else [data_samples[i]]
            results += self.postprocess_result(logits, samples, inputs.shape[-2:])
        return results if data_samples is None else data_samples

    def _losses(self, logits: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        return named_losses(
            self.losses,
            logits,
            labels,
            ignore_index=self.ignore_index,
            align_corners=self.align_corners,
        )

    def _pick(self, outputs: Any) -> Tensor:
        """Find the logits in what the network returned."""
        found = outputs
        if self.output is not None:
            found = self._take(outputs, self.output)
        elif isinstance(outputs, Mapping):
            found = outputs.get("out", outputs.get("logits"))
        elif not isinstance(outputs, Tensor):
            found = getattr(outputs, "logits", None)
        if isinstance(found, Tensor) and found.dim() == 4:
            return found
        keys = f" with keys {sorted(map(str, outputs))}" if isinstance(outputs, Mapping) else ""
        shape = f" {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise UserError(
            f"Segmentor: expected logits (N, classes, h, w) from {type(self.net).__name__}, got "
            f"{type(outputs).__name__}{keys}{shape} (set output= to the logits' key or position)"
        )

    @staticmethod
    def _take(outputs: Any, which: str | int) -> Any:
        """outputs[which], or the attribute of that name; None when there is no such thing."""
        if isinstance(outputs, Mapping):
            return outputs.get(which)
        if isinstance(which, str):
            return getattr(outputs, which, None)
        is_long_enough = isinstance(outputs, Sequence) and which < len(outputs)
        return outputs[which] if is_long_enough else None

    def _check_classes(self, logits: Tensor) -> None:
        channels = logits.shape[1]
        if self.num_classes in (None, channels) or (channels == 1 and self.num_classes == 2):
            return
        raise UserError(
            f"Segmentor: num_classes is {self.num_classes}, but {type(self.net).__name__} has "
            f"{channels} output channels (make the two agree)"
        )
