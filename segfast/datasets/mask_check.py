"""Look at a few image and mask pairs when a dataset is built, before hours of training are lost."""

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

import numpy as np

from segfast.datasets.images import image_size
from segfast.datasets.labels import LabelRule, read_mask
from segfast.datasets.transforms.loading import check_same_size
from segfast.errors import DataError

_NUM_CHECKED = 8


def check_first_masks(
    pairs: Sequence[tuple[str, str | None]],
    rule: LabelRule,
    colors: Sequence[Sequence[int]] | None = None,
    skip: bool = False,
) -> None:
    """Check size and labels of a few pairs, spread evenly over the data set.

    Args:
        pairs: (image, mask) files; pairs without a mask are skipped.
        rule: what labels mean.
        colors: of masks that are colour pictures, see `read_mask`.
        skip: a pair that cannot be used is an error only if no other can.

    Raises:
        DataError: an unreadable file, sizes that differ, a label that is no class, or masks of
            0 and 255 only, which would train one class while 255 is ignored.
    """
    failures: list[DataError] = []
    places = np.unique(np.linspace(0, len(pairs) - 1, _NUM_CHECKED).astype(int))
    seen: set[int] = set()
    example = ""
    for image, mask in (pairs[place] for place in places):
        if mask is None:
            continue
        try:
            raw = read_mask(mask, colors)
            check_same_size(mask, raw.shape, image, image_size(image))
            rule.apply(raw, mask)
        except DataError as error:
            failures.append(error)
            if not skip or len(failures) == len(places):
                raise
            continue
        values = set(np.unique(raw).tolist())
        if not example and 255 in values:
            example = mask
        seen |= values
    if example and seen == {0, 255} and _ignores_foreground(rule):
        raise DataError(
            f"{example}: masks hold only the values 0 and 255, and 255 is ignored, so the second "
            "class would never be seen; set label_map={0: 0, 255: 1} "
            "(or label_map={0: 0, 1: 1, 255: 255} if 255 does mean ignored)"
        )


def _ignores_foreground(rule: LabelRule) -> bool:
    plain = rule.label_map is None and not rule.reduce_zero_label
    return plain and rule.ignore_index == 255 and rule.num_classes == 2
