"""paramwise_cfg: which parameter gets which learning rate and weight decay."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from segfast.errors import ConfigError
from segfast.registry import did_you_mean

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)
_KNOWN = (
    "custom_keys", "norm_decay_mult", "bias_lr_mult", "bias_decay_mult", "dwconv_decay_mult", "flat_decay_mult",
    "bypass_duplicate", "dcn_offset_lr_mult", "force_default_settings",
)  # fmt: skip


def parameter_groups(
    model: nn.Module, optimizer_cfg: Mapping, paramwise: Mapping, *, keep_frozen: bool = False
) -> list[dict[str, Any]]:
    """Groups for a torch optimiser; parameters with equal settings share one.

    A parameter takes the settings of the custom key that its name contains, the longest one, of equally long ones the
    alphabetically first (`lr_mult`, `decay_mult`, anything else as it is). Only without one do the other rules hold:
    `bias_lr_mult` for biases outside norm layers; of the weight decay the first that is given and fits of
    `norm_decay_mult` (norm layers), `bias_decay_mult`, `dwconv_decay_mult` (depth-wise Conv2d), `flat_decay_mult`
    (one-dimensional). With `force_default_settings` they hold on top of a custom key.

    Args:
        model: its parameters, in the order of its modules; shared ones once, frozen ones only with `keep_frozen`.
        optimizer_cfg: `lr` and `weight_decay` are multiplied.
        paramwise: the rules; empty for one group with the optimiser's own settings.
        keep_frozen: frozen parameters too, under the optimiser's own settings.

    Raises:
        ConfigError: an unknown rule, a multiplier of something that `optimizer_cfg` does not set, nothing to train.

    Source: MMEngine's DefaultOptimWrapperConstructor; it makes a group for every parameter.
    """
    _check(paramwise, optimizer_cfg)
    groups: dict[str, dict[str, Any]] = {}
    seen = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not (parameter.requires_grad or keep_frozen):
                continue
            seen.add(id(parameter))
            settings: dict[str, Any] = {}
            if parameter.requires_grad:
                full_name = f"{module_name}.{name}"
                settings = dict(_settings(full_name, name, module, optimizer_cfg, paramwise))
            group = groups.setdefault(repr(sorted(settings.items())), {"params": [], **settings})
            group["params"].append(parameter)
    if not any(p.requires_grad for group in groups.values() for p in group["params"]):
        raise ConfigError("model", "has no trainable parameters")
    return list(groups.values())


def _settings(
    full_name: str, name: str, module: nn.Module, optimizer_cfg: Mapping, paramwise: Mapping
) -> Iterator[tuple[str, Any]]:
    """What differs from the optimiser's own settings for one parameter."""
    lr, decay = optimizer_cfg.get("lr"), optimizer_cfg.get("weight_decay")
    custom = paramwise.get("custom_keys") or {}
    key = next(
        (key for key in sorted(custom, key=lambda k: (-len(k), k)) if key in full_name), None
    )
    if key is not None:
        if lr is not None:
            yield "lr", lr * custom[key].get("lr_mult", 1.0)
        if decay is not None:
            yield "weight_decay", decay * custom[key].get("decay_mult", 1.0)
        yield from custom[key].items()
        if not paramwise.get("force_default_settings"):
            return
    is_norm = isinstance(module, _NORMS)
    if name == "bias" and not is_norm and paramwise.get("bias_lr_mult") is not None:
        yield "lr", lr * paramwise["bias_lr_mult"]
    depthwise = isinstance(module, nn.Conv2d) and module.in_channels == module.groups
    for rule, fits in (
        ("norm_decay_mult", is_norm),
        ("bias_decay_mult", name == "bias"),
        ("dwconv_decay_mult", depthwise),
        ("flat_decay_mult", getattr(module, name).ndim == 1),
    ):
        if fits and decay is not None and paramwise.get(rule) is not None:
            yield "weight_decay", decay * paramwise[rule]
            return


def _check(paramwise: Mapping, optimizer_cfg: Mapping) -> None:
    """Refuse rules that are unknown or have nothing to multiply."""
    path = "optim_wrapper.paramwise_cfg"
    if not isinstance(paramwise, Mapping):
        raise ConfigError(path, f"expected a dict, got {paramwise!r}")
    for key in paramwise:
        if key not in _KNOWN:
            hint = did_you_mean(key, _KNOWN) or f", expected one of {', '.join(_KNOWN)}"
            raise ConfigError(f"{path}.{key}", f"unknown{hint}")
    custom = paramwise.get("custom_keys") or {}
    if not isinstance(custom, Mapping):
        raise ConfigError(f"{path}.custom_keys", f"expected a dict of dicts, got {custom!r}")
    rules = {key: paramwise[key] for key in paramwise if key.endswith("_mult")}
    rules |= {
        f"custom_keys.{part}.{key}": value
        for part, settings in custom.items()
        for key, value in settings.items()
    }
    for key, value in rules.items():
        setting = "weight_decay" if key.endswith("decay_mult") else "lr"
        if key.endswith("_mult") and value is not None and optimizer_cfg.get(setting) is None:
            problem = f"multiplies optim_wrapper.optimizer.{setting}, which is not given"
            raise ConfigError(f"{path}.{key}", problem)
