"""The folders in which OpenMMLab's readers expect a data set: COCO, ADE20K, one folder per class.

A writer makes its folders when it is built, takes pictures one by one, and writes its lists, where
its layout has any, when it is closed.
"""

import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle

from .shapes import CLASSES, SEG_CLASSES, SPLITS, Scene


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of an RGB image, uint8 (H, W, 3), or of a map, uint8 (H, W)."""
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode('.png', pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


class CocoWriter:
    """``coco/{train,val}2017/*.png`` and ``coco/annotations/instances_{train,val}2017.json``.

    Masks are the visible parts, run-length coded; category ids count from 1 in the order of
    ``CLASSES``.
    """

    FOLDER = 'coco'

    def __init__(self, root: Path) -> None:
        self._root = root / self.FOLDER
        self._images: dict[str, list[dict]] = {split: [] for split in SPLITS}
        self._annotations: dict[str, list[dict]] = {split: [] for split in SPLITS}
        for folder in ('annotations', *(f'{split}2017' for split in SPLITS)):
            (self._root / folder).mkdir(parents=True)

    def add(self, split: str, name: str, png: bytes, scene: Scene) -> None:
        """Writes a picture and notes its instances.

        Args:
            split: ``'train'`` or ``'val'``.
            name: File name without its ending.
            png: The picture, encoded.
            scene: What is on it.
        """
        (self._root / f'{split}2017' / f'{name}.png').write_bytes(png)
        images, annotations = self._images[split], self._annotations[split]
        height, width = scene.image.shape[:2]
        image_id = len(images) + 1
        images.append(dict(id=image_id, file_name=f'{name}.png', width=width, height=height))
        for instance in scene.instances:
            runs = rle.encode(np.asfortranarray(instance.mask, np.uint8))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=instance.label + 1,
                    segmentation=dict(size=runs['size'], counts=runs['counts'].decode('ascii')),
                    bbox=list(instance.bbox),
                    area=instance.area,
                    iscrowd=0,
                )
            )

    def close(self) -> None:
        """Writes the annotation files."""
        info = dict(description='Textured shapes, drawn from a seed', version='1.0')
        categories = [dict(id=i, name=n, supercategory='shape') for i, n in enumerate(CLASSES, 1)]
        for split in SPLITS:
            content = dict(
                info=info,
                images=self._images[split],
                annotations=self._annotations[split],
                categories=categories,
            )
            path = self._root / 'annotations' / f'instances_{split}2017.json'
            path.write_text(json.dumps(content), encoding='utf-8')


class AdeWriter:
    """``ADEChallengeData2016/{images,annotations}/{training,validation}/*.png`` and a class list.

    In ADE20K's masks 0 means "ignore", and readers take one off every label: `reduce_zero_label`.
    Background counts as a class here, so it is stored as 1 and the shapes follow from 2: after the
    reader's subtraction labels index ``SEG_CLASSES``.
    """

    FOLDER = 'ADEChallengeData2016'
    _SPLIT_FOLDERS = dict(train='training', val='validation')

    def __init__(self, root: Path) -> None:
        self._root = root / self.FOLDER
        for kind in ('images', 'annotations'):
            for folder in self._SPLIT_FOLDERS.values():
                (self._root / kind / folder).mkdir(parents=True)

    def add(self, split: str, name: str, png: bytes, scene: Scene) -> None:
        """Writes a picture and its mask; arguments as for :meth:`CocoWriter.add`."""
        folder = self._SPLIT_FOLDERS[split]
        (self._root / 'images' / folder / f'{name}.png').write_bytes(png)
        labels = encode_png(scene.semantic_map() + 1)
        (self._root / 'annotations' / folder / f'{name}.png').write_bytes(labels)

    def close(self) -> None:
        """Writes the list of classes."""
        rows = ['Idx\tName', *(f'{i}\t{name}' for i, name in enumerate(SEG_CLASSES, 1))]
        (self._root / 'objectInfo.txt').write_text('\n'.join(rows) + '\n', encoding='utf-8')


class ClassFolderWriter:
    """``imagenet/{train,val}/<class>/*.png``: pictures of one class each."""

    FOLDER = 'imagenet'

    def __init__(self, root: Path) -> None:
        self._root = root / self.FOLDER
        for split in SPLITS:
            for name in CLASSES:
                (self._root / split / name).mkdir(parents=True)

    def add(self, split: str, name: str, png: bytes, label: int) -> None:
        """Writes a picture into the folder of its class (``label`` indexes ``CLASSES``)."""
        (self._root / split / CLASSES[label] / f'{name}.png').write_bytes(png)
