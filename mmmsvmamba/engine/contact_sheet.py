"""Readable pictures of what a detector does with small images: enlarged, ground truth beside prediction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO

#: Pixels between pictures, and height of a line of text.
MARGIN = 12


def draw_pairs(
    annotations: Path,
    images: Path,
    predictions: Iterable[dict],
    palette: Sequence[tuple[int, int, int]],
    zoom: int = 2,
    min_score: float = 0.5,
) -> Iterator[tuple[str, np.ndarray]]:
    """Draws every image twice, with annotated masks (left) and predicted ones (right).

    Args:
        annotations: COCO annotation file; category k has the k-th colour.
        images: Folder of the images.
        predictions: What `tools/test.py --out FILE.pkl` writes: for each image a dict with `img_id` and
            `pred_instances` (labels, scores, masks as
            run-length codes).
        palette: RGB colour of each class.
        zoom: Enlargement.
        min_score: Predictions below are left out.

    Yields:
        The name of the image file and the picture, (zoom · H, 2 · zoom · W + 4, 3) uint8, BGR.

    Raises:
        FileNotFoundError: An image cannot be read.
    """
    coco = COCO(str(annotations))
    names = [category['name'] for category in coco.loadCats(coco.getCatIds())]
    label_of = {category: label for label, category in enumerate(coco.getCatIds())}
    for prediction in predictions:
        info = coco.loadImgs(prediction['img_id'])[0]
        image = cv2.imread(str(images / info['file_name']))
        if image is None:
            raise FileNotFoundError(f'cannot read the image {images / info["file_name"]}')
        truth = [
            (label_of[entry['category_id']], coco.annToMask(entry), '')
            for entry in coco.loadAnns(coco.getAnnIds(info['id'], iscrowd=False))
        ]
        found = prediction['pred_instances']
        predicted = [
            (int(label), rle.decode(mask), f' {float(score):.2f}')
            for label, score, mask in zip(found['labels'], found['scores'], found['masks'], strict=True)
            if score >= min_score
        ]
        yield (
            info['file_name'],
            np.hstack([_draw(image, shapes, names, palette, zoom) for shapes in (truth, predicted)]),
        )


def sheet(pairs: Sequence[np.ndarray], per_row: int = 3) -> np.ndarray:
    """Lays out pictures of one size in rows."""
    return np.vstack([_pad(pairs[i : i + per_row], per_row) for i in range(0, len(pairs), per_row)])


def save(picture: np.ndarray, path: Path) -> None:
    """Writes a picture; the folder is made.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        raise OSError(f'cannot write {path}')


def _draw(image: np.ndarray, shapes: Iterable[tuple[int, np.ndarray, str]], names, palette, zoom: int) -> np.ndarray:
    """The enlarged image with outlines and names; (zoom · H, zoom · W, 3) uint8, BGR."""
    size = (image.shape[1] * zoom, image.shape[0] * zoom)
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    shapes = list(shapes)
    for label, mask, _ in shapes:
        large = cv2.resize(np.ascontiguousarray(mask), size, interpolation=cv2.INTER_NEAREST)
        outline, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outline, -1, (255, 255, 255), 4, cv2.LINE_AA)
        cv2.drawContours(canvas, outline, -1, palette[label][::-1], 2, cv2.LINE_AA)
    for label, mask, note in shapes:
        rows, columns = np.nonzero(mask)
        if len(rows) == 0:
            continue
        text = names[label] + note
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)
        x = int(np.clip(columns.mean() * zoom - width / 2, 1, max(1, size[0] - width - 1)))
        y = int(np.clip(rows.mean() * zoom + height / 2, height + 1, size[1] - 2))
        cv2.rectangle(canvas, (x - 2, y - height - 2), (x + width + 2, y + 3), (0, 0, 0), -1)
        cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(canvas, 0, 0, 0, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _pad(pairs: Sequence[np.ndarray], length: int) -> np.ndarray:
    """A row of `length` pairs with white margins."""
    blank = np.full_like(pairs[0], 255)
    framed = [
        cv2.copyMakeBorder(pair, MARGIN, 0, MARGIN, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        for pair in [*pairs, *[blank] * (length - len(pairs))]
    ]
    return np.hstack(framed)
