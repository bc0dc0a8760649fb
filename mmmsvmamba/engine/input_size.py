"""Evaluation of a classifier at another resolution than the one that it was trained at."""

from mmengine.config import Config

from .class_name import class_name
from .errors import UserError
from .leaf_datasets import leaf_datasets
from .scopes import Scope


def set_input_size(cfg: Config, scope: Scope, size: int) -> None:
    """Lets the test pipeline crop squares of `size` pixels from pictures resized in proportion.

    The short side before the crop keeps its ratio to the crop: for ImageNet recipes, which resize to 256 pixels and
    crop 224, it becomes round(size * 256 / 224). Interpolation and everything else stay.

    Args:
        cfg: the config, changed in place. Call this after `set_tta`, which may replace the pipeline.
        scope: its library.
        size: side of the crop in pixels.

    Raises:
        UserError: for a library other than mmpretrain, a size that is no whole number from 1, or a pipeline that does
            not resize an edge and crop the centre.
    """
    if scope.name != 'mmpretrain':
        raise UserError(
            f'--input-size is for classification; this config is for {scope.task}: set the size in '
            'test_dataloader.dataset.pipeline with --cfg-options.'
        )
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise UserError(f'--input-size {size}: a whole number of pixels from 1 is expected, for example 384.')
    for dataset in leaf_datasets(cfg, 'test_dataloader'):
        _set_input_size(_steps(dataset.get('pipeline') or []), size)


def _set_input_size(steps: list[dict], size: int) -> None:
    resizes = [step for step in steps if class_name(step['type']) == 'ResizeEdge']
    crops = [step for step in steps if class_name(step['type']) == 'CenterCrop']
    if len(resizes) != 1 or len(crops) != 1:
        found = ', '.join(class_name(step['type']) for step in steps) or 'no steps'
        raise UserError(
            '--input-size changes the one ResizeEdge and the one CenterCrop of a test pipeline, but that of '
            f'test_dataloader has {found}. Set the sizes there with --cfg-options instead.'
        )
    [resize], [crop] = resizes, crops
    trained = crop.crop_size if isinstance(crop.crop_size, int) else min(crop.crop_size)
    resize.scale = round(size * resize.scale / trained)
    crop.crop_size = size


def _steps(pipeline: list) -> list[dict]:
    """The steps of a pipeline, with those inside TestTimeAug."""
    found = []
    for step in pipeline:
        found.append(step)
        for branch in step.get('transforms', []):
            found += _steps(branch if isinstance(branch, list | tuple) else [branch])
    return found
