"""CascadeEncoderDecoder: heads in a row, each reading the output of the one before it."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from segfast.models.decode_heads import BaseCascadeDecodeHead, BaseDecodeHead
from segfast.models.encoder_decoder import EncoderDecoder, add_prefix, has_methods_of
from segfast.registry import MODELS
from segfast.structures import SegDataSample


@MODELS.register_module()
class CascadeEncoderDecoder(EncoderDecoder):
    """As `EncoderDecoder`, with `num_stages` decode heads.

    The first head's `forward` takes the feature maps, every later one's also the output of the head
    before it. Losses are named `decode_0.*`, `decode_1.*`. In a training iteration every head runs
    once.

    Args:
        num_stages: how many heads.
        backbone: see `EncoderDecoder`.
        decode_head: a list of heads; the last one predicts.
        **kwargs: see `EncoderDecoder`.
    """

    def __init__(
        self, num_stages: int, backbone: nn.Module | Mapping, decode_head: Sequence, **kwargs: Any
    ) -> None:
        """Build the parts."""
        self.num_stages = num_stages
        super().__init__(backbone, decode_head, **kwargs)

    def _init_decode_head(self, decode_head: Any) -> None:
        assert isinstance(decode_head, (list, tuple)), "decode_head should be a list of heads"
        assert len(decode_head) == self.num_stages, (
            f"num_stages is {self.num_stages}, but decode_head lists {len(decode_head)} heads"
        )
        self.decode_head = nn.ModuleList(
            self._build_head(cfg, f"decode_head.{i}") for i, cfg in enumerate(decode_head)
        )
        self._take_over(self._last_head)

    @property
    def _last_head(self) -> Any:
        return self.decode_head[-1]

    @property
    def threshold(self) -> float:
        """The last head's threshold, or 0.5."""
        value = getattr(self._last_head, "threshold", None)
        return 0.5 if value is None else value

    def _head_inputs(self, feats: Sequence[Tensor]) -> tuple:
        inputs: tuple = (feats,)
        for head in self.decode_head[:-1]:
            inputs = (feats, head(*inputs))
        return inputs

    def _decode_head_forward_train(
        self, feats: Sequence[Tensor], data_samples: Sequence[SegDataSample]
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        inputs: tuple = (feats,)
        for i, head in enumerate(self.decode_head):
            base = BaseCascadeDecodeHead if i else BaseDecodeHead
            is_last = i == self.num_stages - 1
            if has_methods_of(head, base, "loss"):
                output = head(*inputs)
                found = head.loss_by_feat(output, data_samples)
            else:  # a loss of its own, which does not show the output it was computed from
                found = head.loss(*inputs, data_samples, self.train_cfg)
                output = None if is_last else head(*inputs)
            losses.update(add_prefix(found, f"decode_{i}"))
            inputs = (feats, output)
        return losses
