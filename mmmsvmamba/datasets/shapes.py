"""Scenes of textured, overlapping shapes with exact instance masks, drawn from a seed.

Every scene is a pure function of ``(seed, split, index, size)``, so any of them can be drawn alone,
in any order. Outline alone teaches a small network nothing within minutes, so a class also has an
appearance cue: its own kind of texture (four times in five) and a noisy hue. Backgrounds have any
hue and any texture, so colour alone does not give the class away.

Lengths are given for a scene 128 pixels wide and grow with the size of the scene.
"""

import colorsys
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

# In alphabetical order, as class folders are numbered by the libraries that read them.
CLASSES = ('disc', 'square', 'star', 'triangle')
PALETTE = [(230, 60, 60), (120, 200, 40), (40, 190, 220), (150, 70, 230)]  # RGB, for predictions
SEG_CLASSES = ('background', *CLASSES)
SEG_PALETTE = [(90, 90, 90), *PALETTE]
TEXTURES = ('blobs', 'stripes', 'checker', 'noise')  # TEXTURES[i] is what CLASSES[i] mostly wears
SPLITS = ('train', 'val')
# Raised whenever the same arguments give other pictures, so that old files are not reused.
DRAWING_VERSION = 2

MAX_OBJECTS = 12
OF_A_CLASS = (2, 4)  # shapes in a picture of a class
MAX_HIDDEN = 0.6  # of a whole shape, behind others or beyond the border
MIN_VISIBLE = 60  # pixels
MIN_SIZE, MAX_SIZE = 64, 1024  # of a scene

_REFERENCE_SIZE = 128
_EXTENT = (18.0, 70.0)  # of a shape, log-uniform
_HUE_SPREAD = 35 / 360
_OWN_TEXTURE = 0.8
_PIXEL_NOISE = 6.0
_PLACEMENT_TRIES = 30
_BACKGROUND_CONTRAST = (0.1, 0.3)
_SHAPE_CONTRAST = (0.25, 0.45)
_SCENES, _CLASS_PICTURES = 0, 1  # head of the random key: scenes and pictures of a class share no stream


@dataclass(frozen=True)
class Instance:
    """One shape of a scene.

    Attributes:
        label: Index into ``CLASSES``.
        mask: The visible part, bool (H, W).
        hidden: Share of the whole shape that lies behind other shapes or beyond the border, 0 to
            ``MAX_HIDDEN``.
    """

    label: int
    mask: np.ndarray
    hidden: float

    @property
    def area(self) -> int:
        """Visible pixels."""
        return int(self.mask.sum())

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        """Box around the visible part as (x, y, width, height) in pixels."""
        return tuple(cv2.boundingRect(self.mask.astype(np.uint8)))


@dataclass(frozen=True)
class Scene:
    """A picture and what is on it.

    Attributes:
        image: **RGB**, uint8 (H, W, 3).
        instances: From back to front.
    """

    image: np.ndarray
    instances: tuple[Instance, ...]

    def semantic_map(self) -> np.ndarray:
        """Index into ``SEG_CLASSES`` of every pixel, uint8 (H, W)."""
        labels = np.zeros(self.image.shape[:2], np.uint8)
        for instance in self.instances:
            labels[instance.mask] = instance.label + 1
        return labels


def make_scene(split: str, index: int, seed: int = 0, size: int = 128, max_objects: int = MAX_OBJECTS) -> Scene:
    """Draws scene ``index`` of a split.

    Args:
        split: ``'train'`` or ``'val'``; the two share no random stream.
        index: Number of the scene, from 0.
        seed: Another seed is another data set.
        size: Width and height in pixels, 64 to 1024.
        max_objects: The most shapes a scene may have. There is at least one; few are likelier than
            many.

    Raises:
        ValueError: If an argument is out of its range.
    """
    if max_objects < 1:
        raise ValueError(f'max_objects must be at least 1, got {max_objects}')
    rng = _random_stream(_SCENES, split, index, seed, size)
    counts = np.arange(1, max_objects + 1)
    # Even up to six shapes, then a thin tail of crowded scenes.
    weights = np.minimum(1, (6 / counts) ** 4)
    shapes, owner = _place(rng, int(rng.choice(counts, p=weights / weights.sum())), size)

    canvas = _background(rng, size)
    for shape in shapes:
        _paint(rng, canvas, shape)
    visible = [owner == i for i in range(len(shapes))]
    instances = tuple(
        Instance(shape.label, mask, 1 - int(mask.sum()) / shape.area)
        for shape, mask in zip(shapes, visible, strict=True)
    )
    return Scene(_develop(rng, canvas), instances)


def make_class_picture(split: str, index: int, seed: int = 0, size: int = 96) -> tuple[np.ndarray, int]:
    """Draws two to four shapes of one class, within the borders, on a background; classes take turns.

    Of a single shape both hue and texture may be unlike its class; then its outline alone tells the class, which takes
    a network longer than minutes to learn.

    Args:
        split: ``'train'`` or ``'val'``.
        index: Number of the picture, from 0; its class is ``index % len(CLASSES)``.
        seed: As for :func:`make_scene`.
        size: Width and height in pixels, 64 to 1024.

    Returns:
        RGB image, uint8 (H, W, 3), and the label.

    Raises:
        ValueError: If an argument is out of its range.
    """
    rng = _random_stream(_CLASS_PICTURES, split, index, seed, size)
    label = index % len(CLASSES)
    canvas = _background(rng, size)
    for _ in range(rng.integers(*OF_A_CLASS, endpoint=True)):
        extent = rng.uniform(0.35, 0.6) * size
        margin = extent * np.linalg.norm(_outline(label), axis=1).max()
        centre = rng.uniform(margin, size - margin, 2)
        _paint(rng, canvas, _shape(rng, label, extent, centre, size))
    return _develop(rng, canvas), label


def _random_stream(kind: int, split: str, index: int, seed: int, size: int) -> np.random.Generator:
    if split not in SPLITS:
        raise ValueError(f'unknown split {split!r}, expected one of {", ".join(SPLITS)}')
    if index < 0 or seed < 0:
        raise ValueError(f'index and seed must not be negative, got {index} and {seed}')
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f'size must be {MIN_SIZE} to {MAX_SIZE} pixels, got {size}')
    key = (kind, SPLITS.index(split), index)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


# Geometry


@dataclass(frozen=True)
class _Shape:
    """A shape before it is painted.

    Attributes:
        label: Index into ``CLASSES``.
        area: Pixels of the whole shape, seen or not.
        window: Rows and columns of the canvas that it touches.
        coverage: How much of each pixel of the window it fills, uint8, 0 to 255.
    """

    label: int
    area: int
    window: tuple[slice, slice]
    coverage: np.ndarray


@cache
def _outline(label: int) -> np.ndarray:
    """Corners around (0, 0) of a shape of extent 1, float64 (corners, 2).

    Radii are such that all shapes have about the area of a disc of diameter 1: size is no cue.
    """
    corners, radii = {
        'disc': (48, [0.5]),
        'square': (4, [0.66]),
        'star': (10, [0.72, 0.36]),
        'triangle': (3, [0.75]),
    }[CLASSES[label]]
    angles = 2 * np.pi * np.arange(corners) / corners
    radius = np.resize(radii, corners)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _shape(rng: np.random.Generator, label: int, extent: float, centre: np.ndarray, size: int) -> _Shape:
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = centre + extent * _outline(label) @ turn
    low = np.floor(points.min(0)).astype(int) - 1
    width, height = np.ceil(points.max(0)).astype(int) + 2 - low
    whole = np.zeros((height, width), np.uint8)
    fixed_point = np.round((points - low) * 16).astype(np.int32)
    cv2.fillPoly(whole, [fixed_point], 255, cv2.LINE_AA, shift=4)

    (x0, y0), (x1, y1) = np.maximum(low, 0), np.minimum(low + (width, height), size)
    coverage = whole[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]]
    area = int(np.count_nonzero(whole >= 128))
    return _Shape(label, area, (slice(y0, y1), slice(x0, x1)), coverage)


def _place(rng: np.random.Generator, count: int, size: int) -> tuple[list[_Shape], np.ndarray]:
    """Puts shapes on one another so that enough of each stays visible.

    A shape that would hide too much of another, or be cut too much by the border, is drawn anew;
    when no place is found the scene has fewer shapes. Nothing is ever left on the picture that the
    annotation does not know.

    Returns:
        The shapes from back to front, and the index of the front-most one at every pixel, int64
        (H, W), -1 for none.
    """
    scale = size / _REFERENCE_SIZE
    smallest, largest = np.log(_EXTENT)
    shapes: list[_Shape] = []
    owner = np.full((size, size), -1)
    for _ in range(count * _PLACEMENT_TRIES):
        extent = scale * np.exp(rng.uniform(smallest, largest))
        label = int(rng.integers(len(CLASSES)))
        shape = _shape(rng, label, extent, rng.uniform(0, size, 2), size)
        trial = owner.copy()
        trial[shape.window][shape.coverage >= 128] = len(shapes)
        visible = np.bincount(trial.ravel() + 1, minlength=len(shapes) + 2)[1:]
        areas = np.array([s.area for s in (*shapes, shape)])
        if (visible >= np.maximum((1 - MAX_HIDDEN) * areas, MIN_VISIBLE * scale**2)).all():
            shapes.append(shape)
            owner = trial
            if len(shapes) == count:
                break
    return shapes, owner


# Appearance: canvases are float32 RGB in 0 to 1 until `_develop`


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    colour = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.7), rng.uniform(0.35, 0.8))
    texture = str(rng.choice(TEXTURES))
    scale = size / _REFERENCE_SIZE
    return _textured(rng, colour, texture, _BACKGROUND_CONTRAST, (size, size), scale)


def _paint(rng: np.random.Generator, canvas: np.ndarray, shape: _Shape) -> None:
    """Paints the shape onto the canvas, in place, with the cues of its class."""
    hue = (shape.label / len(CLASSES) + rng.normal(0, _HUE_SPREAD)) % 1
    colour = colorsys.hsv_to_rgb(hue, rng.uniform(0.4, 0.95), rng.uniform(0.4, 0.8))
    own = rng.random() < _OWN_TEXTURE
    texture = TEXTURES[shape.label] if own else str(rng.choice(TEXTURES))
    scale = len(canvas) / _REFERENCE_SIZE
    patch = _textured(rng, colour, texture, _SHAPE_CONTRAST, shape.coverage.shape, scale)
    region = canvas[shape.window]
    region += (patch - region) * (shape.coverage[..., None] / np.float32(255))


def _textured(
    rng: np.random.Generator,
    colour: tuple[float, float, float],
    texture: str,
    contrast: tuple[float, float],
    shape: tuple[int, int],
    scale: float,
) -> np.ndarray:
    """A patch of one colour whose brightness alone the texture changes, float32 (H, W, 3)."""
    pattern = _pattern(rng, texture, shape, scale)
    brightness = 1 + rng.uniform(*contrast) * pattern
    return brightness[..., None].astype(np.float32) * np.asarray(colour, np.float32)


def _pattern(rng: np.random.Generator, texture: str, shape: tuple[int, int], scale: float) -> np.ndarray:
    """A texture as numbers from -1 to 1, (H, W)."""
    height, width = shape
    if texture in ('blobs', 'noise'):
        cell = scale * (rng.uniform(4, 7) if texture == 'blobs' else 1)
        grid = rng.uniform(-1, 1, (int(height / cell) + 2, int(width / cell) + 2))
        smooth = cv2.INTER_CUBIC if texture == 'blobs' else cv2.INTER_NEAREST
        field = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=smooth)[:height, :width]
        return np.clip(2 * field, -1, 1) if texture == 'blobs' else field
    period = scale * rng.uniform(6, 10)
    angle, *phases = rng.uniform(0, 2 * np.pi, 3)
    y, x = np.mgrid[:height, :width] * (2 * np.pi / period)
    waves = np.sin(np.cos(angle) * x + np.sin(angle) * y + phases[0])
    if texture == 'checker':
        waves = waves * np.sin(np.cos(angle) * y - np.sin(angle) * x + phases[1])
    return np.clip(3 * waves, -1, 1)


def _develop(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    noise = rng.standard_normal(canvas.shape, np.float32) * _PIXEL_NOISE
    return np.clip(np.round(canvas * 255 + noise), 0, 255).astype(np.uint8)
