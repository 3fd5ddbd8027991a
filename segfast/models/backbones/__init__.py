"""Backbones that configs written for MMSegmentation name; timm's feature extractors are the wider choice."""

# SPDX-License-Identifier: Apache-2.0
from segfast.models.backbones.resnet import ResNet, ResNetV1c, ResNetV1d

__all__ = ["ResNet", "ResNetV1c", "ResNetV1d"]
