"""Tells what is wrong with the data of a running training or test: one message that names the file and the step.

The pipelines of a runner's datasets are replaced by guarded ones after the datasets are built, so that the config which
a run dumps stays one that stock tools can read.
"""

import functools
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, TestTimeAug
from mmcv.transforms import Compose as TransformCompose
from mmcv.transforms import LoadAnnotations as LoadAnnotationsOfAll
from mmengine.dataset import Compose
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Dataset

from .building import build_errors
from .errors import UserError
from .label_maps import LabelMapWatch, LabelRules, label_rules


class DataError(UserError):
    """A sample of which a pipeline can make nothing.

    What a worker process raises, torch raises again as `type(text)`, where the text is the traceback. Of it only the
    message at its end is kept.
    """

    def __init__(self, message: str) -> None:
        if message.startswith(f'Caught {type(self).__name__} in '):
            message = message.rpartition(f'{type(self).__module__}.{type(self).__qualname__}: ')[2].rstrip()
        super().__init__(message)


class GuardedPipeline(Compose):
    """A pipeline whose failures name the files of the sample, the step and what to do.

    Args:
        steps: the steps of a pipeline; the list is shared with it.
        rules: what the label maps may hold, or None to leave them alone.
        attempts: after how many samples in a row of which a step returns None the dataset would give up, or None if it
            takes None for an answer.
    """

    def __init__(self, steps: list[Callable], rules: LabelRules | None = None, attempts: int | None = None) -> None:
        self.transforms = steps
        self.rules = rules
        self.attempts = attempts
        self.in_vain = 0

    def __call__(self, data: dict) -> dict | None:
        watch = LabelMapWatch(self.rules) if self.rules else None
        for position, step in enumerate(self.transforms):
            given = data
            try:
                data = step(given)
                _straighten(data)
                if watch is not None and isinstance(data, Mapping):
                    watch.after(position, data)
            except UserError as error:
                raise error if isinstance(error, DataError) else DataError(str(error)) from None
            except Exception as error:  # whatever it is: it ends the run, and the user needs the names of the files
                raise DataError(_failure(step, given, error)) from error
            if data is None:
                self._count(step, given)
                return None
        self.in_vain = 0
        return data

    def _count(self, step: Callable, data: Any) -> None:
        self.in_vain += 1
        if self.attempts is not None and self.in_vain >= self.attempts:
            tried = f', as for the {self.in_vain - 1} before' if self.in_vain > 1 else ''
            raise DataError(
                f'{_sample(data)} cannot be used{tried}: the step {type(step).__name__} of the pipeline returned '
                f'nothing. {_advice(step, data)}'
            )


class GuardedStep(GuardedPipeline):
    """One step, for datasets that keep a list of them (MultiImageMixDataset) and ask them for more than a call."""

    def __getattr__(self, name: str) -> Any:
        if 'transforms' not in self.__dict__:  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.transforms[0], name)


class DataGuardHook(Hook):
    """Guards pipelines that another hook has put in place of those that the datasets were built with."""

    priority = 'LOWEST'

    def before_train_epoch(self, runner: Runner) -> None:
        guard_dataset(runner.train_dataloader.dataset)

    def before_val_epoch(self, runner: Runner) -> None:
        guard_dataset(runner.val_dataloader.dataset)

    def before_test_epoch(self, runner: Runner) -> None:
        guard_dataset(runner.test_dataloader.dataset)


def guard_data(runner: Runner) -> None:
    """Guards every dataset that a runner will build.

    It has to be done when a loader is built: mmengine 0.10 starts the worker processes of a training by iterations
    before it calls the first hook.
    """
    build = runner.build_dataloader

    @functools.wraps(build)
    def build_guarded(*args, **kwargs):
        with build_errors('building a data loader failed'):
            loader = build(*args, **kwargs)
        guard_dataset(loader.dataset)
        return loader

    runner.build_dataloader = build_guarded
    runner.register_hook(DataGuardHook())


def guard_dataset(dataset: Dataset) -> None:
    """Replaces the pipeline of a dataset, and those of the datasets inside it, by guarded ones; again does nothing."""
    # not getattr: some wrappers answer for the dataset inside them
    own = getattr(dataset, '__dict__', {})
    for inner in (own.get('dataset'), own.get('_dataset'), *(own.get('datasets') or ())):
        if inner is not None:
            guard_dataset(inner)
    pipeline = own.get('pipeline')
    refetches = own.get('max_refetch')
    if isinstance(pipeline, list):
        # each step is tried `max_refetch` times; mmseg's wrapper tries once
        attempts = 1 if refetches is None else refetches
        dataset.pipeline = [
            step if isinstance(step, GuardedStep) else GuardedStep([step], attempts=attempts) for step in pipeline
        ]
    elif callable(pipeline) and not isinstance(pipeline, GuardedPipeline):
        attempts = 1 if own.get('test_mode') else None if refetches is None else refetches + 1
        dataset.pipeline = _guarded(dataset, pipeline, attempts)


def _guarded(dataset: Dataset, pipeline: Callable, attempts: int | None) -> GuardedPipeline:
    # a class of the user's own may do more than run its steps
    steps = pipeline.transforms if type(pipeline) in (Compose, TransformCompose) else [pipeline]
    for step in steps:
        if type(step) is TestTimeAug:
            step.subroutines = [_guarded(dataset, routine, 1) for routine in step.subroutines]
    return GuardedPipeline(steps, label_rules(dataset, steps), attempts)


def _straighten(data: Any) -> None:
    """Copies a flipped image of one column, which numpy calls contiguous although it runs backwards.

    The packing steps of the libraries then hand it to torch as it is, and torch refuses.
    """
    image = data.get('img') if isinstance(data, Mapping) else None
    if isinstance(image, np.ndarray) and image.flags.c_contiguous and min(image.strides, default=0) < 0:
        data['img'] = image.copy()


def _failure(step: Callable, data: Any, error: Exception) -> str:
    kind = type(error)
    name = kind.__name__ if kind.__module__ == 'builtins' else f'{kind.__module__}.{kind.__name__}'
    reason = ' '.join(str(error).split())
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f'{_sample(data)} cannot be used: the step {_steps(step, error)} of the pipeline failed with {name}'
        f'{": " if reason else ""}{reason[:300]}{"…" if len(reason) > 300 else ""} '
        f'({Path(place.filename).name}, line {place.lineno}). {_advice(step, data)}'
    )


def _steps(step: Callable, error: Exception) -> str:
    """The step, and those inside it that were at work, like `RandomResize > Resize`."""
    names = [type(step).__name__]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        inner = frame.f_locals.get('self')
        if isinstance(inner, BaseTransform) and not isinstance(inner, TransformCompose):
            names += [type(inner).__name__] if type(inner).__name__ != names[-1] else []
    return ' > '.join(names)


def _sample(data: Any) -> str:
    """Names the files of a sample, or of the several that are mixed into one."""
    samples = [data, *(data.get('mix_results') or ())] if isinstance(data, Mapping) else []
    images = [path for sample in samples for path in _listed(sample.get('img_path'))]
    masks = [path for sample in samples for path in _listed(sample.get('seg_map_path'))]
    if not images:
        number = data.get('sample_idx') if isinstance(data, Mapping) else None
        return 'A sample' if number is None else f'Sample {number}'
    return (
        f'{"The image" if len(images) == 1 else "One of the images"} {_some(images)}'
        f'{f" (mask {_some(masks)})" if masks else ""}'
    )


def _listed(paths: Any) -> list:
    return [path for path in (paths if isinstance(paths, list | tuple) else [paths]) if path]


def _some(names: list, most: int = 4) -> str:
    return ', '.join(map(str, names[:most])) + (', …' if len(names) > most else '')


def _advice(step: Callable, data: Any) -> str:
    """What is wrong with the file that a step was to load, or with what it was to work on, and what to do."""
    out = 'or take this image out of the data set'
    data = data if isinstance(data, Mapping) else {}
    if hasattr(step, 'imdecode_backend'):
        masks = _listed(data.get('seg_map_path')) if isinstance(step, LoadAnnotationsOfAll) else []
        for path in masks or _listed(data.get('img_path')):
            if '://' in str(path):
                continue
            if not Path(path).is_file():
                return f'There is no file {path}: put it there, {out}.'
            content = np.fromfile(path, np.uint8)
            if not content.size or cv2.imdecode(content, cv2.IMREAD_UNCHANGED) is None:
                return f'{path} ({content.size:,} bytes) is damaged, truncated or no picture: get it again, {out}.'
            return f'OpenCV can read {path}: change the options of this step, {out}.'
    shape = data.get('ori_shape')
    pixels = f'The image was read and has {shape[1]} × {shape[0]} pixels: c' if shape and len(shape) > 1 else 'C'
    return f'{pixels}hange the options of this step, {out}.'
