"""List image and mask files below two folders and pair them by stem."""

# SPDX-License-Identifier: Apache-2.0
import os
from collections.abc import Iterable

from segfast.errors import DataError
from segfast.registry import did_you_mean

# What the decoders of `images` read.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".gif", ".ppm", ".pgm",
)  # fmt: skip
# What else is a picture, or meant to be one.
_OTHER_PICTURES = (
    ".jpe", ".jfif", ".jpx", ".j2k", ".jxl", ".pbm", ".pnm", ".pfm", ".dib", ".tga", ".avif", ".heic", ".heif", ".exr",
    ".hdr", ".psd", ".dng", ".cr2", ".nef", ".arw", ".svg", ".eps", ".dcm", ".nii", ".npy", ".ico",
)  # fmt: skip
_MOST_FOLDERS = 200_000

Suffixes = str | tuple[str, ...] | list[str]


def list_files(folder: str, suffixes: Suffixes, what: str) -> dict[str, str]:
    """Files below `folder` (sub-folders too) by stem, in sorted order.

    Args:
        folder: where to look; names that start with a dot are skipped.
        suffixes: one or several endings, upper or lower case; the stem is the path below
            `folder` without its ending.
        what: `image` or `mask`, for messages.

    Returns:
        stem -> path.

    Raises:
        DataError: no such folder, or two files with one stem.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder for the {what}s{_near_folder(folder)}")
    endings = sorted(_as_tuple(suffixes), key=len, reverse=True)
    found: dict[str, str] = {}
    for path in _walk(folder):
        name = os.path.relpath(path, folder).replace(os.sep, "/")
        ending = next((e for e in endings if name.lower().endswith(e.lower())), None)
        if ending is None:
            continue
        stem = name[: len(name) - len(ending)]
        if stem in found:
            option = "img_suffix" if what == "image" else "seg_map_suffix"
            raise DataError(
                f"{path}: a second {what} named {stem!r} beside {os.path.basename(found[stem])}; "
                f"say which ending counts with {option}"
            )
        found[stem] = path
    return found


def pair_files(
    image_folder: str,
    mask_folder: str | None,
    image_suffixes: Suffixes,
    mask_suffixes: Suffixes,
    ann_file: str | None = None,
    unpaired: dict[str, list[str]] | None = None,
) -> list[tuple[str, str | None]]:
    """Pairs (image, mask), in the order of `ann_file` or sorted by name.

    Args:
        image_folder: folder of the images.
        mask_folder: folder of the masks; None pairs every image with None.
        image_suffixes: endings of image files.
        mask_suffixes: endings of mask files.
        ann_file: text file with one stem per line; None takes every image.
        unpaired: where a dict is given, images without a mask are left out and listed under
            "image", masks without an image (unless there is an `ann_file`) under "mask".

    Raises:
        DataError: a folder is missing or holds no image, an image has no mask, or `ann_file`
            names an image that is not there.
    """
    images = list_files(image_folder, image_suffixes, "image")
    if not images:
        raise DataError(f"{image_folder}: {_nothing_found(image_folder, image_suffixes)}")
    stems = list(images) if ann_file is None else _read_stems(ann_file, images, image_folder)
    if mask_folder is None:
        return [(images[stem], None) for stem in stems]
    masks = list_files(mask_folder, mask_suffixes, "mask")
    missing = [stem for stem in stems if stem not in masks]
    if unpaired is not None:
        strays = [masks[stem] for stem in masks if stem not in images] if ann_file is None else []
        unpaired |= {"image": [images[stem] for stem in missing], "mask": strays}
        stems = [stem for stem in stems if stem in masks]
    elif missing:
        stem, count = missing[0], f"{len(missing)} of {len(stems)} images have none"
        looked_for = _looked_for(stem, mask_suffixes)
        raise DataError(
            f"{images[stem]}: no mask for this image in {mask_folder} ({count}; looked for "
            f"{looked_for}); {_mask_remedy(masks, missing, stems, mask_folder)}"
        )
    return [(images[stem], masks[stem]) for stem in stems]


def listed_suffixes(suffixes: Suffixes) -> str:
    """The endings, for messages."""
    return ", ".join(_as_tuple(suffixes))


def _as_tuple(suffixes: Suffixes) -> tuple[str, ...]:
    return (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)


def pictures_left_out(folder: str, suffixes: Suffixes) -> list[str]:
    """Files that are pictures by their ending, but have none of `suffixes`."""
    taken = tuple(ending.lower() for ending in _as_tuple(suffixes))
    endings = (*IMAGE_SUFFIXES, *_OTHER_PICTURES)
    names = ((path, path.lower()) for path in _walk(folder))
    return [path for path, name in names if name.endswith(endings) and not name.endswith(taken)]


def _walk(folder: str) -> list[str]:
    """Every file below it; links to folders are followed, but not into a folder that holds them."""
    paths: list[str] = []
    above: dict[str, frozenset[str]] = {folder: frozenset([os.path.realpath(folder)])}
    for count, (here, folders, names) in enumerate(os.walk(folder, followlinks=True)):
        if count > _MOST_FOLDERS:
            raise DataError(
                f"{folder}: more than {_MOST_FOLDERS} folders below it (hint: do its links lead in circles?)"
            )
        reached = above.pop(here)
        inner = []
        for name in folders:
            path = os.path.join(here, name)
            real = os.path.realpath(path) if os.path.islink(path) else ""
            if name.startswith(".") or (real and _holds_any(real, reached)):
                continue
            inner.append(name)
            above[path] = reached | {real or os.path.realpath(path)}
        folders[:] = inner
        paths += [os.path.join(here, name) for name in names if not name.startswith(".")]
    return sorted(paths)


def _holds_any(folder: str, others: Iterable[str]) -> bool:
    """Whether one of the others is that folder, or lies in it; all are real paths."""
    inner = folder.rstrip(os.sep) + os.sep
    return any(other == folder or other.startswith(inner) for other in others)


def _near_folder(folder: str) -> str:
    """What the nearest existing parent holds instead: most wrong paths are misspelt."""
    parent, name = os.path.split(os.path.normpath(folder))
    while parent and not os.path.isdir(parent):
        parent, name = os.path.split(parent)
    siblings = [entry.name for entry in os.scandir(parent or ".") if entry.is_dir()]
    return f"; {parent or '.'} has no {name!r}{did_you_mean(name, siblings)}: " + (
        "check data_root and data_prefix"
    )


def _nothing_found(folder: str, suffixes: Suffixes) -> str:
    looked_for = f"no images in this folder (looked for {listed_suffixes(suffixes)}"
    others = _walk(folder)
    if not others:
        return f"{looked_for}); it is empty: check data_root and data_prefix.img_path"
    name = os.path.basename(others[0])
    return f"{looked_for}; it holds {len(others)} other files such as {name}): set img_suffix"


def _looked_for(stem: str, suffixes: Suffixes) -> str:
    first, *others = _as_tuple(suffixes)
    return f"{stem}{first}" + (f" or {', '.join(others)}" if others else "")


def _mask_remedy(masks: dict[str, str], missing: list, stems: list, mask_folder: str) -> str:
    if len(missing) == len(stems):
        names = [os.path.basename(path) for path in masks.values()] or [
            os.path.basename(path) for path in _walk(mask_folder)
        ]
        if names:
            return f"its files are named like {names[0]}: set seg_map_suffix to match"
        return "the folder is empty: check data_prefix.seg_map_path"
    return "add the mask, or list the images to use in ann_file"


def _read_stems(ann_file: str, images: dict[str, str], image_folder: str) -> list[str]:
    if not os.path.isfile(ann_file):
        raise DataError(f"{ann_file}: no such file; ann_file lists one image stem per line")
    with open(ann_file, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    stems = []
    for number, line in enumerate(lines, start=1):
        stem = line if line in images else os.path.splitext(line)[0]
        if not line:
            continue
        if stem not in images:
            raise DataError(
                f"{ann_file}: line {number} names {line!r}, but there is no such image in "
                f"{image_folder}{did_you_mean(line, images) if len(images) < 5000 else ''}"
            )
        stems.append(stem)
    if not stems:
        raise DataError(f"{ann_file}: lists no image; write one image stem per line")
    return stems
