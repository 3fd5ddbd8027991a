"""Decode heads: from a backbone's feature maps to logits."""

# SPDX-License-Identifier: Apache-2.0
from segfast.models.decode_heads.aspp_head import ASPPHead, DepthwiseSeparableASPPHead
from segfast.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from segfast.models.decode_heads.decode_head import BaseDecodeHead
from segfast.models.decode_heads.fcn_head import DepthwiseSeparableFCNHead, FCNHead
from segfast.models.decode_heads.pyramid_pooling import PSPHead, UPerHead
from segfast.models.decode_heads.segformer_head import SegformerHead

__all__ = [
    "ASPPHead",
    "BaseCascadeDecodeHead",
    "BaseDecodeHead",
    "DepthwiseSeparableASPPHead",
    "DepthwiseSeparableFCNHead",
    "FCNHead",
    "PSPHead",
    "SegformerHead",
    "UPerHead",
]
