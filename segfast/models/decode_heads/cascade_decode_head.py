"""BaseCascadeDecodeHead: a decode head that refines what another one said."""

# SPDX-License-Identifier: Apache-2.0
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from segfast.models.decode_heads.decode_head import BaseDecodeHead
from segfast.structures import SegDataSample


class BaseCascadeDecodeHead(BaseDecodeHead):
    """A head that also reads the logits of the head before it; for `CascadeEncoderDecoder`."""

    @abstractmethod
    def forward(self, inputs: Sequence[Tensor], prev_output: Tensor) -> Tensor:  # type: ignore[override]
        """Feature maps and the previous head's output -> logits (N, out_channels, h, w)."""

    def loss(  # type: ignore[override]
        self,
        inputs: Sequence[Tensor],
        prev_output: Tensor,
        batch_data_samples: Sequence[SegDataSample],
        train_cfg: Any,
    ) -> dict[str, Tensor]:
        """As `BaseDecodeHead.loss`."""
        return self.loss_by_feat(self.forward(inputs, prev_output), batch_data_samples)

    def predict(  # type: ignore[override]
        self,
        inputs: Sequence[Tensor],
        prev_output: Tensor,
        batch_img_metas: Sequence[Mapping],
        test_cfg: Any,
    ) -> Tensor:
        """As `BaseDecodeHead.predict`."""
        return self.predict_by_feat(self.forward(inputs, prev_output), batch_img_metas)
