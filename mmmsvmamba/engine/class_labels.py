"""Checks that the labels of classification data sets mean classes of the model, and the same ones in every split.

mmpretrain believes every list of files, and numbers class folders by their place in the alphabet: a label that the head
does not have stops a training in its middle, and splits with different folders are learned and tested on different
labels.
"""

import os
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS

from .errors import UserError
from .image_folders import built_unread
from .scopes import Scope


def check_class_labels(cfg: Config, scope: Scope, datasets: list[dict]) -> None:
    """Checks the lists and the class folders of mmpretrain's CustomDataset and its subclasses, where they are local.

    Args:
        cfg: a config of mmpretrain.
        scope: its library.
        datasets: what its data loaders read, without wrappers.

    Raises:
        UserError: for lines of a list without a label, or with one that the head does not have, for splits with
            different folders, and for folders that are no classes of ImageNet.
    """
    from mmpretrain.datasets import CustomDataset
    from mmpretrain.datasets.custom import find_folders

    from mmmsvmamba.datasets.imagenet import ImageNetFolders

    head = cfg.model.get('head')
    num_classes = head.get('num_classes') if isinstance(head, dict) else None
    numbered: dict[str, list[str]] = {}
    for dataset in datasets:
        with DATASETS.switch_scope_and_registry(scope.name) as registry:
            kind = registry.get(dataset['type']) if isinstance(dataset['type'], str) else dataset['type']
        built = built_unread(kind, dataset, scope, CustomDataset, 'load_data_list')
        if built is None or not built.with_label:
            continue
        if built.ann_file and os.path.isfile(built.ann_file):
            _check_list(Path(built.ann_file), num_classes)
        elif built.ann_file or not os.path.isdir(built.img_prefix):
            continue
        elif isinstance(built, ImageNetFolders):
            built.check_folders()
        else:
            numbered[built.img_prefix] = find_folders(built.img_prefix)[0]
    _check_same(numbered)


def _check_same(numbered: dict[str, list[str]]) -> None:
    """Folders that are numbered by their place must be the same in every split."""
    for place, folders in numbered.items():
        first, expected = next(iter(numbered.items()))
        if folders != expected:
            differing = sorted(set(folders) ^ set(expected))
            shown = ', '.join(differing[:4]) + (', …' if len(differing) > 4 else '')
            raise UserError(
                f'{first} and {place} have different class folders ({shown}), so that the same label would mean '
                'different classes. Make the folders the same; a class without pictures in one of them needs an empty '
                'folder there.'
            )


def _check_list(path: Path, num_classes: int | None) -> None:
    with path.open(encoding='utf-8') as lines:
        for count, line in enumerate(lines, 1):
            name, _, label = line.strip().rpartition(' ')
            if not name or not label.isdecimal():
                raise UserError(
                    f'{path}, line {count}: {line.strip()[:80]!r}; expected a file name, a blank and a label from 0.'
                )
            if num_classes is not None and int(label) >= num_classes:
                raise UserError(
                    f'{path}, line {count}: the label {label}, but the model has model.head.num_classes = '
                    f'{num_classes}, hence labels 0 to {num_classes - 1}. Correct the list, or the head.'
                )
