"""The schedulers for the momentum: that of SGD, the first beta of Adam and its kin."""

# SPDX-License-Identifier: Apache-2.0

from typing import Any

from segfast.registry import PARAM_SCHEDULERS
from segfast.runner import schedulers
from segfast.runner.plateau import ReduceOnPlateauLR
from segfast.runner.scheduler import ParamScheduler


def _twin(scheduler: type[ParamScheduler]) -> Any:
    """`PolyLR` -> `PolyMomentum`: the same schedule for the other parameter, registered."""
    body = {"param_name": "momentum", "__module__": __name__, "__doc__": scheduler.__doc__}
    name = scheduler.__name__.removesuffix("LR") + "Momentum"
    return PARAM_SCHEDULERS.register_module()(type(name, (scheduler,), body))


PolyMomentum = _twin(schedulers.PolyLR)
CosineAnnealingMomentum = _twin(schedulers.CosineAnnealingLR)
CosineRestartMomentum = _twin(schedulers.CosineRestartLR)
LinearMomentum = _twin(schedulers.LinearLR)
ConstantMomentum = _twin(schedulers.ConstantLR)
StepMomentum = _twin(schedulers.StepLR)
MultiStepMomentum = _twin(schedulers.MultiStepLR)
ExponentialMomentum = _twin(schedulers.ExponentialLR)
ReduceOnPlateauMomentum = _twin(ReduceOnPlateauLR)
