"""Look at a few image and mask pairs when a dataset is built, before hours of training are lost."""

# SPDX-License-Identifier: Apache-2.0
import warnings
from collections.abc import Sequence

import numpy as np

from segfast.datasets.images import image_size, lossy_format, open_image, orientation_of
from segfast.datasets.labels import LabelRule, read_mask
from segfast.errors import DataError

_NUM_CHECKED = 8
_LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jp2", ".webp")


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
        DataError: no pair at all, an unreadable file, sizes that differ, a label that is no class, or masks of
            0 and 255 only, which would train one class while 255 is ignored.
    """
    if not pairs:
        raise DataError(
            "the data set has no sample (hint: check data_prefix, ann_file and indices)"
        )
    _warn_of_lossy_masks(pairs)
    failures: list[DataError] = []
    places = np.unique(np.linspace(0, len(pairs) - 1, _NUM_CHECKED).astype(int))
    seen: set[int] = set()
    example = ""
    for image, mask in (pairs[place] for place in places):
        if mask is None:
            continue
        try:
            raw = read_mask(mask, colors)
            _check_sizes(mask, raw.shape, image)
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


def _check_sizes(mask: str, mask_size: tuple[int, ...], image: str) -> None:
    """Refuse a mask that fits its image neither as the camera's tag turns it nor as it lies in the file."""
    size = image_size(image)
    with open_image(image) as picture:
        either_way = orientation_of(picture) >= 5
    if mask_size != size and not (either_way and mask_size == size[::-1]):
        raise DataError(differing_sizes(mask, mask_size, image, size))


def differing_sizes(
    mask: str, mask_size: tuple[int, ...], image: str, image_size: tuple[int, ...]
) -> str:
    """Both sizes (H, W) in words, and whether a camera's orientation tag may be what makes the difference."""
    what = (
        f"{mask}: mask is {mask_size[1]}x{mask_size[0]} but its image {image} is "
        f"{image_size[1]}x{image_size[0]} (width x height); both must have one size"
    )
    with open_image(image) as picture:
        orientation = orientation_of(picture)
    if orientation < 5:
        return what
    return (
        f"{what} (the image's EXIF orientation is {orientation}: color_type='color' and 'grayscale' turn it, "
        "'unchanged' does not)"
    )


def _warn_of_lossy_masks(pairs: Sequence[tuple[str, str | None]]) -> None:
    """JPEG masks may pass every other check: their wrong labels are often those of other classes."""
    suspects = [m for _, m in pairs if m is not None and m.lower().endswith(_LOSSY_SUFFIXES)]
    for mask in suspects[:1]:
        try:
            lossy = lossy_format(mask)
        except DataError:
            continue  # said in its turn
        if lossy:
            warnings.warn(
                f"{mask}: {lossy} changes label values near edges ({len(suspects)} masks end like this "
                "one); save masks as PNG",
                stacklevel=2,
            )


def _ignores_foreground(rule: LabelRule) -> bool:
    plain = rule.label_map is None and not rule.reduce_zero_label
    return plain and rule.ignore_index == 255 and rule.num_classes == 2
