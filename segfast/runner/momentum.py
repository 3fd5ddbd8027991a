"""The schedulers for the momentum: that of SGD, the first beta of Adam and its kin."""

# SPDX-License-Identifier: Apache-2.0

from segfast.registry import PARAM_SCHEDULERS
from segfast.runner.plateau import ReduceOnPlateauLR
from segfast.runner.schedulers import (
    ConstantLR,
    CosineAnnealingLR,
    CosineRestartLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolyLR,
    StepLR,
)


@PARAM_SCHEDULERS.register_module()
class PolyMomentum(PolyLR):
    """As PolyLR."""

    param_name = "momentum"


@PARAM_SCHEDULERS.register_module()
class CosineAnnealingMomentum(CosineAnnealingLR):
    """As CosineAnnealingLR."""

    param_name = "momentum"


@PARAM_SCHEDULERS.register_module()
class CosineRestartMomentum(CosineRestartLR):
    """As CosineRestartLR."""

    param_name = "momentum"


@PARAM_SCHEDULERS.register_module()
class LinearMomentum(LinearLR):
    """As LinearLR."""

    param_name = "momentum"


@PARAM_SCHEDULERS.register_module()
class ConstantMomentum(ConstantLR):
    """As ConstantLR."""

    param_name = "momentum"


@PARAM_SCHEDULERS.register_module()
class StepMomentum(StepLR):
    """As StepLR."""

    param_name = "momentum"


@PARAM_SCHEDULERS.register_module()
class MultiStepMomentum(MultiStepLR):
    """As MultiStepLR."""

    param_name = "momentum"


@PARAM_SCHEDULERS.register_module()
class ExponentialMomentum(ExponentialLR):
    """As ExponentialLR."""

    param_name = "momentum"


@PARAM_SCHEDULERS.register_module()
class ReduceOnPlateauMomentum(ReduceOnPlateauLR):
    """As ReduceOnPlateauLR."""

    param_name = "momentum"
