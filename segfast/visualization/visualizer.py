"""SegLocalVisualizer: draws label maps in the data set's colours, over or beside the image."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from segfast.errors import ConfigError
from segfast.paths import being_written, inside
from segfast.registry import DATASETS, VISUALIZERS, did_you_mean
from segfast.structures import SegDataSample
from segfast.visualization.backend import build_backends
from segfast.visualization.class_names import draw_class_names
from segfast.visualization.window import show_picture

_IGNORED = (90, 90, 90)
_RIGHT, _WRONG = (60, 160, 60), (220, 40, 40)
_GAP = 4
_CAPTION = 16


@VISUALIZERS.register_module()
class SegLocalVisualizer:
    """Draws segmentations with Pillow.

    Args:
        name: by which `get_instance` finds it.
        image: (H, W, 3) uint8 RGB, what `get_image` returns until something is drawn.
        vis_backends: configs or objects with `add_image` and `add_scalars`; they get the pictures then.
        save_dir: folder for pictures drawn by `add_datasample` without `out_file`, and for the backends.
        classes: names.
        palette: RGB colours, one for each class.
        dataset_name: a registered data set whose classes and palette count where none are given; `voc`
            and `cityscapes` do as well as `PascalVOCDataset`.
        alpha: weight of the colours over the image, in [0, 1].
        dataset_meta: dict(classes=[names], palette=[RGB colours]), instead of the three before.

    Raises:
        ValueError: `alpha` is out of range.
        ConfigError: no data set of that name, or a backend cannot be built.
    """

    _instances: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        name: str = "visualizer",
        image: np.ndarray | None = None,
        vis_backends: Sequence | None = None,
        save_dir: str | Path | None = None,
        classes: Sequence[str] | None = None,
        palette: Sequence | None = None,
        dataset_name: str | None = None,
        alpha: float = 0.8,
        *,
        dataset_meta: Mapping | None = None,
    ) -> None:
        """Take the settings, build the backends."""
        if not 0 <= alpha <= 1:
            raise ValueError(f"expected alpha in [0, 1], got {alpha}")
        if dataset_meta is None and (classes is not None or dataset_name is not None):
            declared = {} if dataset_name is None else _declared_meta(dataset_name)
            dataset_meta = {
                "classes": list(classes or declared.get("classes", ())),
                "palette": palette or declared.get("palette"),
            }
        self.name = name
        self.vis_backends = build_backends(vis_backends, save_dir)
        self.dataset_meta = dataset_meta
        self.alpha = alpha
        self.save_dir = save_dir
        self._image = image
        self._instances.pop(name, None)
        self._instances[name] = self

    @classmethod
    def get_instance(cls, name: str, **kwargs: Any) -> Any:
        """The visualizer of that name, made with `kwargs` if there is none yet."""
        return cls._instances[name] if name in cls._instances else cls(name=name, **kwargs)

    @classmethod
    def get_current_instance(cls) -> Any:
        """The visualizer that was made last: in a run, the run's.

        Raises:
            RuntimeError: none was made.
        """
        if not cls._instances:
            raise RuntimeError(f"no visualizer was made yet (hint: {cls.__name__}())")
        return next(reversed(cls._instances.values()))

    def get_image(self) -> np.ndarray | None:
        """What was drawn last, (H, W, 3) uint8 RGB; None before."""
        return self._image

    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | Path | None = None,
        step: int = 0,
        with_labels: bool = True,
    ) -> np.ndarray:
        """Draw truth and prediction over an image, side by side.

        Args:
            name: file name without ending, for `save_dir`.
            image: (H, W, 3) uint8 RGB.
            data_sample: with `gt_sem_seg` and / or `pred_sem_seg`.
            draw_gt: draw the truth if there is one.
            draw_pred: draw the prediction if there is one.
            show: open it in the system's viewer; without a display, a warning.
            wait_time: seconds to wait behind `show`.
            out_file: write there instead of to `save_dir`.
            step: number in the file name.
            with_labels: write the classes' names onto their regions, where they fit.

        Returns:
            (H, W, 3), or (H, 2 W, 3) when both are drawn, uint8 RGB.
        """
        parts = []
        for wanted, field in ((draw_gt, "gt_sem_seg"), (draw_pred, "pred_sem_seg")):
            if wanted and data_sample is not None and field in data_sample:
                labels = _fitted(_labels(getattr(data_sample, field).data), image.shape[:2])
                part = self.overlay(image, labels)
                parts.append(self._with_names(part, labels) if with_labels else part)
        picture = np.concatenate(parts or [image], axis=1)
        self._image = picture
        if show:
            show_picture(picture, name, wait_time)
        if out_file is None and self.vis_backends:
            self.add_image(name, picture, step)
        elif out_file is None and self.save_dir is not None:
            out_file = inside(self.save_dir, f"{name}_{step}.png")
        if out_file is not None:
            with being_written(Path(out_file)) as path:
                Image.fromarray(picture).save(path)
        return picture

    def add_image(self, name: str, image: np.ndarray, step: int = 0) -> None:
        """Hand a picture (H, W, 3) uint8 RGB to the backends."""
        for backend in self.vis_backends:
            backend.add_image(name, image, step)

    def add_scalars(self, scalars: Mapping[str, Any], step: int = 0) -> None:
        """Hand numbers to the backends."""
        for backend in self.vis_backends:
            backend.add_scalars(scalars, step)

    def close(self) -> None:
        """Close the backends."""
        for backend in self.vis_backends:
            backend.close()

    def draw_grid(self, rows: Sequence[tuple[Tensor, SegDataSample]], path: Path) -> np.ndarray:
        """Write one picture with a row per sample: image, truth, prediction, errors; and return it.

        Args:
            rows: pairs of a raw image (C, H, W) uint8 BGR, as it came from the loader, and its predicted sample.
            path: the PNG to write.
        """
        strips = [_strip(self._cells(image, sample)) for image, sample in rows]
        width = max(strip.shape[1] for strip in strips)
        padded = [
            np.pad(s, ((0, _GAP), (0, width - s.shape[1]), (0, 0)), constant_values=255)
            for s in strips
        ]
        grid = np.concatenate(padded)
        canvas = Image.new("RGB", (width, grid.shape[0] + _CAPTION), "white")
        canvas.paste(Image.fromarray(grid), (0, _CAPTION))
        draw = ImageDraw.Draw(canvas)
        cell = self._cells(*rows[0])[0].shape[1] + _GAP
        for i, caption in enumerate(("image", "truth", "prediction", "errors red")):
            draw.text((2 + i * cell, 2), caption, fill="black")
        picture = self._with_legend(canvas)
        with being_written(path):
            picture.save(path)
        return np.asarray(picture)

    def overlay(self, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Colours over an (H, W, 3) image; ignored pixels keep the image."""
        colours = self.colourise(labels).astype(np.float32)
        mixed = image * (1 - self.alpha) + colours * self.alpha
        known = (labels < self._num_classes(labels))[..., None]
        return np.where(known, mixed, image).round().astype(np.uint8)

    def colourise(self, labels: np.ndarray) -> np.ndarray:
        """(H, W) labels -> (H, W, 3) uint8 RGB; labels beyond the classes are grey."""
        palette = np.full((max(256, int(labels.max(initial=0)) + 1), 3), _IGNORED, dtype=np.uint8)
        colours = self._palette(self._num_classes(labels))
        palette[: len(colours)] = colours
        return palette[np.where(labels < 0, 255, labels)]

    def _num_classes(self, labels: np.ndarray) -> int:
        classes = (self.dataset_meta or {}).get("classes")
        return len(classes) if classes else int(labels[labels < 255].max(initial=0)) + 1

    def _palette(self, count: int) -> np.ndarray:
        palette = (self.dataset_meta or {}).get("palette")
        if palette:
            return np.asarray(palette, dtype=np.uint8)
        return np.random.default_rng(42).integers(0, 256, (count, 3), dtype=np.uint8)

    def _cells(self, image: Tensor, sample: SegDataSample) -> list[np.ndarray]:
        pred = _labels(sample.pred_sem_seg.data)
        rgb = to_rgb(image, pred.shape)
        if "gt_sem_seg" not in sample:
            return [rgb, self.colourise(pred)]
        truth = _fitted(_labels(sample.gt_sem_seg.data), pred.shape)
        ignored = truth >= self._num_classes(truth)
        errors = np.where((truth == pred)[..., None], _RIGHT, _WRONG)
        errors = np.where(ignored[..., None], _IGNORED, errors).astype(np.uint8)
        return [rgb, self.colourise(truth), self.colourise(pred), errors]

    def _with_names(self, picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
        classes = (self.dataset_meta or {}).get("classes") or []
        return draw_class_names(picture, labels, classes, self._palette(len(classes)))

    def _with_legend(self, picture: Image.Image) -> Image.Image:
        """The class names in their colours, below."""
        classes = (self.dataset_meta or {}).get("classes") or []
        palette = self._palette(len(classes))
        places, x, y = [], 2, 2
        for name in classes:
            width = 20 + 7 * len(name)
            if x + width > picture.width and x > 2:
                x, y = 2, y + _CAPTION
            places.append((x, y))
            x += width
        canvas = Image.new(
            "RGB", (picture.width, picture.height + (y + _CAPTION if classes else 0)), "white"
        )
        canvas.paste(picture, (0, 0))
        draw = ImageDraw.Draw(canvas)
        for (x, y), name, colour in zip(places, classes, palette, strict=False):
            top = picture.height + y
            draw.rectangle(
                (x, top, x + 10, top + 10), fill=tuple(int(c) for c in colour), outline="black"
            )
            draw.text((x + 14, top - 1), name, fill="black")
        return canvas


def _labels(data: Tensor) -> np.ndarray:
    """(1, H, W) labels of any integer or float dtype -> (H, W) int64."""
    return data.squeeze(0).cpu().numpy().astype(np.int64)


def _fitted(labels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Labels of another size than the picture, such as a test-time label kept at its own, brought to it."""
    if labels.shape == tuple(size):
        return labels
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]


def _declared_meta(dataset_name: str) -> Mapping:
    """The METAINFO of a registered data set, by its class's name or a short form of it."""
    wanted = dataset_name.lower().replace("_", "")
    for name in DATASETS:
        found = DATASETS.get(name)
        known = (name, name.removesuffix("Dataset"), *getattr(found, "ALIASES", ()))
        if wanted in (word.lower().replace("_", "") for word in known):
            return getattr(found, "METAINFO", {})
    hint = did_you_mean(dataset_name, DATASETS)
    problem = f"no data set {dataset_name!r} is registered{hint}"
    raise ConfigError("dataset_name", f"{problem} (hint: give classes and palette)")


def to_rgb(image: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """A raw (C, H, W) image as (H, W, 3) uint8 RGB; the first bands, stretched, when it is not 8-bit."""
    array = image[:3].permute(1, 2, 0).cpu().numpy()
    if array.shape[2] < 3:
        array = np.repeat(array[..., :1], 3, axis=2)
    if array.dtype != np.uint8:
        low, high = np.percentile(array, (1, 99))
        array = np.clip((array - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(array[..., ::-1]))
    return np.asarray(
        picture if picture.size[::-1] == tuple(size) else picture.resize((size[1], size[0]))
    )


def _strip(cells: list[np.ndarray]) -> np.ndarray:
    """Pictures side by side, with a white gap."""
    return np.concatenate(
        [np.pad(cell, ((0, 0), (0, _GAP), (0, 0)), constant_values=255) for cell in cells], axis=1
    )
