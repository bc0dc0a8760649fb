"""Checks that a label map fits its image and its dataset, while mmseg loads it.

mmseg does not look: an id that is no class stops a GPU with a device assert and is left out of an evaluation without a
word, 16-bit ids wrap around to 8 bits, a map of another size fails somewhere in a loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.dataset import BaseDataset
from PIL import Image

from .errors import UserError

#: What mmseg writes for pixels that count in no loss and no metric (reduce_zero_label, custom classes, padding).
IGNORED = 255
#: Packages whose steps leave the ids in a label map as they are.
LIBRARIES = ('mmcv', 'mmengine', 'mmseg', 'mmdet', 'mmpretrain')

TURNED = (
    " If the image was turned because its file says so (EXIF), set color_type='color_ignore_orientation' in "
    'LoadImageFromFile.'
)


@dataclass(frozen=True)
class LabelRules:
    """What the label maps of a dataset may hold.

    Args:
        dataset: the name of its type.
        classes: how many classes it has; 0 if it does not say.
        stored: how many ids a file may hold, more than `classes` where only some of a file's classes are learnt.
        ignored: ids of a loaded map that are no class and may be there.
        shifted: whether loading maps 0 to `IGNORED` and lowers the other ids by one (`reduce_zero_label`).
        wraps: whether the map is loaded by mmseg's own step, which cuts ids to 8 bits.
        last_own: the position of the last step of the pipeline that is not the libraries' own and may change ids; -1
            if there is none.
    """

    dataset: str
    classes: int
    stored: int
    ignored: tuple[int, ...]
    shifted: bool
    wraps: bool
    last_own: int


def label_rules(dataset: BaseDataset, steps: Sequence[Callable]) -> LabelRules | None:
    """Returns the rules for the label maps of a dataset, or None if mmseg loads none for it.

    Args:
        dataset: any dataset.
        steps: the steps of its pipeline, or of a part of it.
    """
    if not _is_mmseg(type(dataset)):
        return None
    from mmseg.datasets import BaseSegDataset
    from mmseg.datasets.transforms import LoadAnnotations

    if not isinstance(dataset, BaseSegDataset) or not any(isinstance(step, LoadAnnotations) for step in steps):
        return None
    classes = len(dataset.metainfo.get('classes') or ())
    own = [i for i, step in enumerate(steps) if type(step).__module__.split('.')[0] not in LIBRARIES]
    return LabelRules(
        dataset=type(dataset).__name__,
        classes=classes,
        stored=len(dataset.label_map) if dataset.label_map else classes,
        ignored=tuple({IGNORED, dataset.ignore_index}),
        shifted=bool(dataset.reduce_zero_label),
        wraps=any(type(step) is LoadAnnotations for step in steps),
        last_own=max(own, default=-1),
    )


def _is_mmseg(kind: type) -> bool:
    return any(base.__module__.split('.')[0] == 'mmseg' for base in kind.__mro__)


class LabelMapWatch:
    """Follows one sample through a pipeline and checks its label map as soon as it and its image are loaded.

    In a test pipeline the image is resized before the map is loaded, hence sizes are compared with `ori_shape`. Ids and
    channels are looked at once all steps that are not the libraries' own have run, since those may change them.
    """

    def __init__(self, rules: LabelRules) -> None:
        self.rules = rules
        self.loaded_at: int | None = None
        self.done = False

    def after(self, position: int, results: dict) -> None:
        """Looks at a sample after a step.

        Args:
            position: that of the step in its pipeline.
            results: what the step returned; a map that mmcv has squeezed to one axis gets its two axes back.

        Raises:
            UserError: naming the files, what is wrong and what to do.
        """
        if self.done or not ('gt_seg_map' in results and 'ori_shape' in results):
            return
        if self.loaded_at is None:
            self.loaded_at = position
            _restore_axes(results)
            if self.rules.wraps:
                _check_depth(results)
            _check_size(results)
        if position >= self.rules.last_own:
            self.done = True
            _check_channels(results)
            self._check_ids(results)

    def _check_ids(self, results: dict) -> None:
        labels, rules = results['gt_seg_map'], self.rules
        if not rules.classes:
            return
        # one channel with a sigmoid tells one class from everything else: ids 0 and 1
        wrong = labels >= max(rules.classes, 2)
        for ignored in rules.ignored:
            wrong &= labels != ignored
        if not wrong.any():
            return
        # those that custom classes leave out have become IGNORED, so that these are as in the file, but for the shift
        as_in_file = rules.last_own < self.loaded_at
        shift = int(rules.shifted and as_in_file)
        found = [f'{value + shift} ({count} pixels)' for value, count in zip(*_counted(labels[wrong]), strict=True)]
        changed = '' if as_in_file else ', as the steps of the pipeline have left them'
        first = int(rules.shifted)
        ignored = sorted({0, *rules.ignored} if rules.shifted else set(rules.ignored))
        raise UserError(
            f'{_names(results)} has label ids that are no class: {_some(found)}{changed}. The {rules.dataset} has '
            f'{rules.classes} classes and reduce_zero_label={rules.shifted}: expected ids {first} to '
            f'{rules.stored - 1 + first} in the file, and {" or ".join(map(str, ignored))} where nothing is to be '
            'learnt. Correct the file (other ids become 255); or set reduce_zero_label of the dataset '
            '(True: 0 is no class, False: it is the first); or name all classes with metainfo=dict(classes=(…,)) and '
            'set num_classes of every head to their number.'
        )


def _restore_axes(results: dict) -> None:
    labels, shape = results['gt_seg_map'], tuple(results['ori_shape'][:2])
    if labels.ndim < 2 and labels.size == shape[0] * shape[1]:
        results['gt_seg_map'] = labels.reshape(shape)


def _check_size(results: dict) -> None:
    height, width = results['ori_shape'][:2]
    shape = results['gt_seg_map'].shape
    if shape[:2] != (height, width):
        found = ' × '.join(map(str, shape[1::-1])) if len(shape) > 1 else f'{shape[0] if shape else 1} in one row'
        raise UserError(
            f'{_names(results)} has another size: {found} pixels (width × height), but the image has '
            f'{width} × {height}. Every pixel of an image needs a label: make the mask anew from this image, or resize '
            'it with nearest-neighbour interpolation.' + (TURNED if shape[:2] == (width, height) else '')
        )


def _check_channels(results: dict) -> None:
    labels = results['gt_seg_map']
    if labels.ndim != 2 or not (np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool):
        channels = f'{labels.shape[2]} channels' if labels.ndim == 3 else f'shape {labels.shape}'
        raise UserError(
            f'{_names(results)} is no label map: it was loaded with {channels} of {labels.dtype}; expected one '
            'channel of 8-bit class ids. Replace colours by class ids and save a grey or indexed PNG; an indexed one '
            "needs imdecode_backend='pillow' in LoadAnnotations."
        )


def _check_depth(results: dict) -> None:
    """Looks at the file again: mmseg has already cut what it loaded to 8 bits."""
    path = results['seg_map_path']
    if '://' in path:
        return
    try:
        with Image.open(path) as picture:
            if not picture.mode.startswith(('I', 'F')):
                return
            most = np.asarray(picture).max()
    except (OSError, Image.DecompressionBombError):  # what only the loading step can open
        return
    if most > IGNORED:
        raise UserError(
            f'{_names(results)} holds ids up to {most}, with more than 8 bits each; mmseg reads 8 bits and would take '
            f'{most} for {int(most) % 256}. Save it as an 8-bit PNG with ids 0 to 255.'
        )


def _counted(labels: np.ndarray) -> tuple[list[int], list[int]]:
    values, counts = np.unique(labels, return_counts=True)
    return values.tolist(), counts.tolist()


def _names(results: dict) -> str:
    return f'The mask {results.get("seg_map_path")} of the image {results.get("img_path")}'


def _some(found: list[str], most: int = 5) -> str:
    return ', '.join(found[:most]) + (f' and {len(found) - most} more' if len(found) > most else '')
