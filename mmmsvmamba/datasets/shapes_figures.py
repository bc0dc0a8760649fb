"""What a drawn data set holds, and how far colour alone gets on it."""

from collections import Counter

import cv2
import numpy as np

from .shapes import CLASSES, SEG_CLASSES, SPLITS, Scene

SMALL_AREA = 32**2  # pixels, COCO's bound


class ColourBaseline:
    """A look-up from the colour of a pixel to the class that had it most often in training.

    It sees no texture and no outline: a network that scores no better has learnt colours only.
    Colours are HSV in 36 x 16 x 16 bins; background is a class like the others.
    """

    _BINS = (36, 16, 16)

    def __init__(self) -> None:
        self._seen = np.zeros((int(np.prod(self._BINS)), len(SEG_CLASSES)), np.int64)
        self._confusion = np.zeros((len(SEG_CLASSES), len(SEG_CLASSES)), np.int64)  # truth, guess

    def fit(self, image: np.ndarray, labels: np.ndarray) -> None:
        """Counts the pixels of a training picture.

        Args:
            image: RGB, uint8 (H, W, 3).
            labels: Index into ``SEG_CLASSES``, uint8 (H, W).
        """
        self._seen += _count_pairs(self._colour_bins(image), labels, self._seen.shape)

    def score(self, image: np.ndarray, labels: np.ndarray) -> None:
        """Guesses the pixels of an unseen picture and keeps the outcome; takes what `fit` takes."""
        guess = self._seen.argmax(1)[self._colour_bins(image)]
        self._confusion += _count_pairs(labels, guess, self._confusion.shape)

    def iou(self) -> np.ndarray:
        """Intersection over union over all scored pictures, float64 (classes,), NaN if absent."""
        hits = np.diag(self._confusion)
        union = self._confusion.sum(0) + self._confusion.sum(1) - hits
        return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)

    def _colour_bins(self, image: np.ndarray) -> np.ndarray:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int64)
        hue, saturation, value = np.moveaxis(hsv * self._BINS // (180, 256, 256), -1, 0)
        return (hue * self._BINS[1] + saturation) * self._BINS[2] + value


def _count_pairs(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    flat = rows.astype(np.int64) * shape[1] + columns
    return np.bincount(flat.ravel(), minlength=shape[0] * shape[1]).reshape(shape)


class Figures:
    """Gathers the figures of a data set scene by scene, all training scenes first."""

    def __init__(self) -> None:
        self._objects: dict[str, list[int]] = {split: [] for split in SPLITS}
        self._labels: dict[str, Counter] = {split: Counter() for split in SPLITS}
        self._areas: dict[str, list[int]] = {split: [] for split in SPLITS}
        self._hidden: dict[str, list[float]] = {split: [] for split in SPLITS}
        self._baseline = ColourBaseline()

    def add(self, split: str, scene: Scene) -> None:
        """Counts one scene in."""
        self._objects[split].append(len(scene.instances))
        self._labels[split].update(CLASSES[instance.label] for instance in scene.instances)
        self._areas[split].extend(instance.area for instance in scene.instances)
        self._hidden[split].extend(instance.hidden for instance in scene.instances)
        look = self._baseline.fit if split == 'train' else self._baseline.score
        look(scene.image, scene.semantic_map())

    def summary(self) -> dict:
        """The figures as plain numbers, ready for JSON: one entry per split and ``colour_only``."""
        figures = {split: self._summary_of(split) for split in SPLITS}
        iou = self._baseline.iou()
        figures['colour_only'] = {
            'miou': float(np.nanmean(iou)),
            'iou': {name: float(value) for name, value in zip(SEG_CLASSES, iou, strict=True) if not np.isnan(value)},
        }
        return figures

    def _summary_of(self, split: str) -> dict:
        objects, areas, hidden = self._objects[split], self._areas[split], self._hidden[split]
        return {
            'scenes': len(objects),
            'instances': len(areas),
            'instances_per_class': {name: self._labels[split][name] for name in CLASSES},
            'objects_per_scene': {
                'min': min(objects),
                'mean': float(np.mean(objects)),
                'max': max(objects),
            },
            'small_share': float(np.mean(np.array(areas) < SMALL_AREA)),
            'hidden': {'mean': float(np.mean(hidden)), 'max': float(np.max(hidden))},
        }


def describe(figures: dict) -> str:
    """The figures of :meth:`Figures.summary` as lines to print."""
    lines = []
    for split in SPLITS:
        part = figures[split]
        objects, hidden = part['objects_per_scene'], part['hidden']
        per_class = ', '.join(f'{n} {name}' for name, n in part['instances_per_class'].items())
        lines += [
            f'{split:5} {part["scenes"]} scenes, {part["instances"]} instances: {per_class}',
            f'      {objects["min"]} to {objects["max"]} objects a scene, '
            f'{objects["mean"]:.1f} on average; {part["small_share"]:.0%} small (under 32² px); '
            f'hidden {hidden["mean"]:.0%} on average, {hidden["max"]:.0%} at most',
        ]
    colour = figures['colour_only']
    per_class = ', '.join(f'{name} {value:.2f}' for name, value in colour['iou'].items())
    lines.append(f'colour alone: mIoU {colour["miou"]:.3f} on unseen scenes ({per_class})')
    return '\n'.join(lines)
