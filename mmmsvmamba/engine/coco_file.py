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
    _check_entries(annotations, content)
    missing = _missing_files(Path(images), [image['file_name'] for image in content['images']])
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


def _check_entries(path: Path, content: dict) -> None:
    """Checks what every entry must have, and that some annotation belongs to some image."""
    for key, name in (('images', 'file_name'), ('categories', 'name')):
        for i, entry in enumerate(content[key]):
            whole = isinstance(entry, dict) and isinstance(entry.get('id'), int | str)
            if not whole or not isinstance(entry.get(name), str):
                raise UserError(f'{path}: {key}[{i}] is {str(entry)[:80]}; expected an id and a text {name!r}.')
    for i, entry in enumerate(content['annotations']):
        if not isinstance(entry, dict) or not isinstance(entry.get('image_id'), int | str):
            raise UserError(f'{path}: annotations[{i}] is {str(entry)[:80]}; expected an image_id.')
    for key in ('images', 'annotations'):
        if not content[key]:
            raise UserError(f'{path} has no {key}: there is nothing to learn from or to evaluate.')
    known = {image['id'] for image in content['images']}
    if not any(entry['image_id'] in known for entry in content['annotations']):
        raise UserError(
            f'{path}: none of its {len(content["annotations"])} annotations belongs to one of its '
            f'{len(known)} images (each image_id must be the id of an image).'
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
