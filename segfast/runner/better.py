"""Which way is better, told from a metric's name."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence

from segfast.registry import did_you_mean

# Source: MMEngine's CheckpointHook, with mFscore, mRecall and PSNR, which it cannot tell.
GREATER = (
    "acc", "top", "AR@", "auc", "precision", "mAP", "mDice", "mIoU", "mAcc", "aAcc", "mFscore", "mRecall", "PSNR",
)  # fmt: skip
LESS = ("loss",)


def better_rule(
    metric: str,
    rule: str | None,
    greater_keys: Sequence[str] = GREATER,
    less_keys: Sequence[str] = LESS,
) -> str:
    """The rule if it is given, else "greater" or "less" by name.

    A key equal to the name decides before one that the name contains, greater before less; case does not matter.

    Raises:
        ValueError: an unknown rule, or a name that says nothing.
    """
    if rule in ("greater", "less"):
        return str(rule)
    if rule is not None:
        raise ValueError(f"expected rule 'greater' or 'less', got {rule!r}")
    name = metric.lower()
    greater, less = ([key.lower() for key in keys] for keys in (greater_keys, less_keys))
    for keys, found in ((greater, "greater"), (less, "less")):
        if name in keys:
            return found
    for keys, found in ((greater, "greater"), (less, "less")):
        if any(key in name for key in keys):
            return found
    hint = did_you_mean(metric, [*greater_keys, *less_keys])
    raise ValueError(
        f"cannot tell whether a greater {metric} is better; set rule='greater' or 'less'{hint}"
    )
