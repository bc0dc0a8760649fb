"""Checks data sets that are folders of images: masks in another one (mmseg), or a folder for each class (mmpretrain).

The libraries do not look: an empty split ends somewhere in numpy, a missing mask when its turn comes.
"""

import inspect
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from .building import build_errors
from .errors import UserError
from .scopes import Scope

if TYPE_CHECKING:
    from mmpretrain.datasets import CustomDataset
    from mmseg.datasets import BaseSegDataset


def check_segmentation_folders(kind: type, dataset: dict, scope: Scope) -> None:
    """Checks that there are images, and a mask for each where masks are loaded.

    Args:
        kind: the class of the dataset.
        dataset: its config.
        scope: its library.

    Raises:
        UserError: naming the folder or the list, what is missing and what to do.
    """
    from mmseg.datasets import BaseSegDataset

    built = built_unread(kind, dataset, scope, BaseSegDataset, 'load_data_list')
    if built is None:
        return
    prefix = built.data_prefix
    images, masks = prefix.get('img_path') or '', prefix.get('seg_map_path')
    if not _is_folder(images):
        return
    built.full_init()
    samples = built.data_list
    if not samples:
        raise UserError(_no_images(built, images))
    if built.ann_file and os.path.isfile(built.ann_file):
        absent = _absent([sample['img_path'] for sample in samples])
        if absent:
            raise UserError(
                f'{built.ann_file} names {len(absent)} of {len(samples)} images that are not there: {_some(absent)}. '
                f'Each line is a name below {images} without the ending {built.img_suffix} (img_suffix); an empty line '
                'counts as one.'
            )
    if masks is None or not _loads_masks(dataset.get('pipeline') or ()):
        return
    absent = _absent([sample['seg_map_path'] for sample in samples])
    if absent:
        raise UserError(
            f'{len(absent)} of {len(samples)} images in {images} have no mask in {masks}: missing are {_some(absent)}; '
            f'there are {_endings(masks)}. Put the masks there, set seg_map_suffix (now {built.seg_map_suffix}) and '
            'data_prefix.seg_map_path, or take those images out.'
        )


def check_classification_folders(kind: type, dataset: dict, scope: Scope) -> tuple[str, ...] | None:
    """Checks that there are images and, where folders are the classes, a folder for each class.

    Args:
        kind: the class of the dataset.
        dataset: its config.
        scope: its library.

    Returns:
        The names of the class folders where these are the classes, otherwise None.

    Raises:
        UserError: naming the folder or the list, what is missing and what to do.
    """
    from mmpretrain.datasets import CustomDataset
    from mmpretrain.datasets.custom import find_folders

    built = built_unread(kind, dataset, scope, CustomDataset, 'load_data_list', '_find_samples')
    if built is None or not _is_local(built.img_prefix):
        return None
    root = built.img_prefix
    if not os.path.isdir(root):
        raise UserError(f'The folder of images {root} does not exist ({os.path.abspath(root)}).')
    if built.ann_file:
        if os.path.isfile(built.ann_file) and not Path(built.ann_file).read_bytes().strip():
            raise UserError(f'{built.ann_file} is empty: it should name the images below {root}, one a line.')
        return None
    folders, _ = find_folders(root)
    places = [os.path.join(root, folder) for folder in folders] if built.with_label else [root]
    if not any(built.is_valid_file(name) for place in places for name in _files(place)):
        searched = f'the {len(folders)} class folders below {root}' if built.with_label else root
        raise UserError(
            f'There are no images in {searched}: none of its files ends with {", ".join(sorted(built.extensions))}; '
            f'there are {_endings(root)}. Put the images there'
            + (', each in the folder of its class' if built.with_label else '')
            + ', or set data_prefix, ann_file or extensions of the dataset.'
        )
    if not built.with_label:
        return None
    if built.CLASSES is not None and len(built.CLASSES) != len(folders):
        raise UserError(
            f'{root} has {len(folders)} folders ({_some(folders)}), but the dataset has {len(built.CLASSES)} classes '
            f'({_some(list(built.CLASSES))}). Each folder is a class: name them with metainfo=dict(classes=(…,)) of '
            "every dataset, and set the head's num_classes to their number."
        )
    return tuple(folders)


def built_unread(kind: type, dataset: dict, scope: Scope, base: type, *readers: str) -> Any:
    """The dataset before it has read anything, with the defaults of its class, or None if it has a layout of its own.

    Args:
        kind: the class of the dataset.
        dataset: its config.
        scope: its library.
        base: the class whose layout is known.
        readers: the methods of `base` that read that layout.
    """
    if not issubclass(kind, base) or any(getattr(kind, name) is not getattr(base, name) for name in readers):
        return None
    accepted = inspect.signature(kind).parameters
    unread = dict(pipeline=[], lazy_init=True, serialize_data=False)
    if not (unread.keys() <= accepted.keys() or any(option.kind is option.VAR_KEYWORD for option in accepted.values())):
        return None
    with (
        DATASETS.switch_scope_and_registry(scope.name) as registry,
        build_errors(f'building the dataset {kind.__name__} failed'),
    ):
        built: BaseDataset | BaseSegDataset | CustomDataset = registry.build({**dataset, **unread})
    return built


def _no_images(dataset: 'BaseSegDataset', images: str) -> str:
    if dataset.ann_file and os.path.isfile(dataset.ann_file):
        return f'{dataset.ann_file} is empty: it should name the images below {images}, one a line.'
    return (
        f'There are no images in {images} that end with {dataset.img_suffix} (img_suffix of the dataset): there are '
        f'{_endings(images)}. Set img_suffix, or data_prefix.img_path to the folder of the images.'
    )


def _is_local(path: str) -> bool:
    return '://' not in path


def _is_folder(path: str) -> bool:
    return _is_local(path) and os.path.isdir(path)


def _loads_masks(pipeline: Any) -> bool:
    """Whether a step of a pipeline, or of one inside it, loads annotations."""
    if isinstance(pipeline, dict):
        kind = pipeline.get('type')
        name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
        return name.endswith('LoadAnnotations') or any(_loads_masks(value) for value in pipeline.values())
    return isinstance(pipeline, list | tuple) and any(map(_loads_masks, pipeline))


def _absent(paths: list[str]) -> list[str]:
    """The files among local paths that are not there; reads each directory once, however many files it holds."""
    local = [path for path in paths if _is_local(path)]
    present = {
        folder: set(os.listdir(folder)) if os.path.isdir(folder) else set()
        for folder in {os.path.dirname(path) for path in local}
    }
    return [path for path in local if os.path.basename(path) not in present[os.path.dirname(path)]]


def _files(folder: str) -> Iterator[str]:
    """The names of all files below a folder, one after the other; the libraries leave out hidden ones."""
    for _, _, names in os.walk(folder, followlinks=True):
        yield from (name for name in names if not name.startswith('.'))


def _endings(folder: str) -> str:
    """How many files there are of each kind, as `12 .png files`."""
    found = Counter(os.path.splitext(name)[1] or 'unnamed' for name in _files(folder))
    return ', '.join(f'{count} {ending} files' for ending, count in found.most_common(4)) or 'no files'


def _some(names: list[str], most: int = 3) -> str:
    return ', '.join(map(str, names[:most])) + (', …' if len(names) > most else '')
