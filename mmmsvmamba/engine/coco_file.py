"""Checks an annotation file in COCO format against the images on disk and the classes that a model learns."""

import json
import os
from pathlib import Path

from .errors import UserError


def check_coco_dataset(annotations: Path, images: str, classes: tuple[str, ...] | None) -> None:
    """Checks that an annotation file is readable, names images that exist and knows the classes.

    Args:
        annotations: the JSON file.
        images: the folder that its file names are relative to.
        classes: the names that the dataset maps to labels, or None if unknown.

    Raises:
        UserError: saying which file is wrong, and how.
    """
    content = _read(annotations)
    missing = _missing_files(Path(images), [image['file_name'] for image in content['images'] if 'file_name' in image])
    if missing:
        raise UserError(
            f'{annotations} names {len(missing)} of {len(content["images"])} images that are not in {images}: '
            f'{", ".join(missing[:3])}{", …" if len(missing) > 3 else ""}. Unpack all images there, or use the '
            'annotation file that belongs to them.'
        )
    names = [category['name'] for category in content['categories']]
    unknown = [name for name in classes or () if name not in names]
    if unknown:
        # CocoDataset drops these silently and numbers the others anew.
        raise UserError(
            f'{annotations} has {len(names)} categories ({_some(names)}), without {len(unknown)} of the '
            f'{len(classes)} classes of the dataset ({_some(unknown)}). Set metainfo=dict(classes=(…,)) of '
            "every dataset, and the heads' num_classes, to what the file has."
        )


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:  # not JSON, or not text at all
        raise UserError(f'{path} is not JSON: {error}. Download or unpack it again.') from error
    needed = ('images', 'annotations', 'categories')
    lacking = [key for key in needed if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if lacking:
        raise UserError(
            f'{path} is JSON, but not a COCO annotation file: expected lists {", ".join(needed)}, '
            f'without {", ".join(lacking)} here.'
        )
    return content


def _missing_files(folder: Path, names: list[str]) -> list[str]:
    """The names that are not below `folder`; reads each directory once, however many files it holds."""
    present = {
        parent: set(os.listdir(folder / parent)) if (folder / parent).is_dir() else set()
        for parent in {os.path.dirname(name) for name in names}
    }
    return [name for name in names if os.path.basename(name) not in present[os.path.dirname(name)]]


def _some(names: list[str]) -> str:
    return ', '.join(names[:4]) + (', …' if len(names) > 4 else '')
