"""Models: preprocessors, the base classes, segmentors, losses, one small built-in network."""

# SPDX-License-Identifier: Apache-2.0
from segfast.models.backbones import ResNet, ResNetV1c, ResNetV1d
from segfast.models.base import BaseModel
from segfast.models.base_conditional_gan import BaseConditionalGAN
from segfast.models.base_data_preprocessor import BaseDataPreprocessor
from segfast.models.base_edit_model import BaseEditModel
from segfast.models.base_gan import BaseGAN
from segfast.models.base_segmentor import BaseSegmentor
from segfast.models.batch_augments import CutMix, MixUp, Mosaic
from segfast.models.binary_loss import (
    _expand_onehot_labels,
    binary_cross_entropy,
    mask_cross_entropy,
)
from segfast.models.cascade_encoder_decoder import CascadeEncoderDecoder
from segfast.models.data_preprocessor import SegDataPreProcessor
from segfast.models.decode_heads import (
    ASPPHead,
    BaseCascadeDecodeHead,
    BaseDecodeHead,
    DepthwiseSeparableASPPHead,
    DepthwiseSeparableFCNHead,
    FCNHead,
    PSPHead,
    SegformerHead,
    UPerHead,
)
from segfast.models.dice_loss import DiceLoss
from segfast.models.distributed import FSDP, MMDistributedDataParallel
from segfast.models.edit_data_preprocessor import DataPreprocessor
from segfast.models.encoder_decoder import EncoderDecoder
from segfast.models.focal_loss import FocalLoss
from segfast.models.image_losses import CharbonnierLoss, GANLoss, L1Loss, MSELoss
from segfast.models.img_data_preprocessor import ImgDataPreprocessor, stack_batch
from segfast.models.losses import CrossEntropyLoss
from segfast.models.lovasz_loss import LovaszLoss
from segfast.models.ohem_sampler import OHEMPixelSampler
from segfast.models.pixel_loss import PixelLoss
from segfast.models.reductions import (
    Accuracy,
    accuracy,
    reduce_loss,
    weight_reduce_loss,
    weighted_loss,
)
from segfast.models.segmentor import Segmentor
from segfast.models.softmax_loss import cross_entropy
from segfast.models.tta import BaseTTAModel, SegTTAModel
from segfast.models.tversky_loss import TverskyLoss
from segfast.models.zoo import SegNetS

__all__ = [
    "FSDP",
    "ASPPHead",
    "Accuracy",
    "BaseCascadeDecodeHead",
    "BaseConditionalGAN",
    "BaseDataPreprocessor",
    "BaseDecodeHead",
    "BaseEditModel",
    "BaseGAN",
    "BaseModel",
    "BaseSegmentor",
    "BaseTTAModel",
    "CascadeEncoderDecoder",
    "CharbonnierLoss",
    "CrossEntropyLoss",
    "CutMix",
    "DataPreprocessor",
    "DepthwiseSeparableASPPHead",
    "DepthwiseSeparableFCNHead",
    "DiceLoss",
    "EncoderDecoder",
    "FCNHead",
    "FocalLoss",
    "GANLoss",
    "ImgDataPreprocessor",
    "L1Loss",
    "LovaszLoss",
    "MMDistributedDataParallel",
    "MSELoss",
    "MixUp",
    "Mosaic",
    "OHEMPixelSampler",
    "PSPHead",
    "PixelLoss",
    "ResNet",
    "ResNetV1c",
    "ResNetV1d",
    "SegDataPreProcessor",
    "SegNetS",
    "SegTTAModel",
    "SegformerHead",
    "Segmentor",
    "TverskyLoss",
    "UPerHead",
    "_expand_onehot_labels",
    "accuracy",
    "binary_cross_entropy",
    "cross_entropy",
    "mask_cross_entropy",
    "reduce_loss",
    "stack_batch",
    "weight_reduce_loss",
    "weighted_loss",
]
