"""What `tools/test.py` adds to a config: drawing, test-time augmentation, dumping of predictions."""

import importlib
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from .errors import UserError
from .leaf_datasets import leaf_datasets
from .scopes import Scope


def set_drawing(cfg: Config, scope: Scope, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Draws the ground truth and the prediction of every test image, in a window or into `show_dir`.

    Args:
        cfg: the config, changed in place.
        scope: its library.
        show: open windows.
        show_dir: the folder for the pictures, relative to the current one.
        wait_time: seconds that a window stays.
    """
    folder = str(Path(show_dir).absolute()) if show_dir else None
    if cfg.get('visualizer') is None:
        cfg.visualizer = dict(type=scope.visualizer, vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    if scope.name == 'mmpretrain':
        importlib.import_module('mmmsvmamba.engine.class_pictures')  # registers the hook
        hooks.visualization = ConfigDict(type=scope.visualization_hook, show=show, wait_time=wait_time, out_dir=folder)
        return
    hook = hooks.setdefault('visualization', ConfigDict(type=scope.visualization_hook))
    hook.update(show=show, wait_time=wait_time)
    hook.draw = True
    if scope.name == 'mmseg':
        hook.interval = 1  # the original mmseg draws every 50th test image, its fork all of them
    if folder and scope.name == 'mmdet':
        hook.test_out_dir = folder
    elif folder:
        cfg.visualizer.save_dir = folder


def set_tta(cfg: Config, scope: Scope) -> None:
    """Averages predictions over flips (and scales, where the config lists them).

    Raises:
        UserError: for instance segmentation, which mmdet does not support; for a segmentation config that does not say
            how (`tta_model`, `tta_pipeline`).
    """
    if scope.name == 'mmdet' and has_masks(cfg.model):
        raise UserError(
            '--tta: TTA of instance segmentation does not support now (a limit of mmdet, whose DetTTAModel merges '
            'boxes only). Test this model without --tta.'
        )
    if scope.name == 'mmseg' and not ('tta_model' in cfg and 'tta_pipeline' in cfg):
        raise UserError(
            '--tta: the config has no tta_model and tta_pipeline. mmseg::_base_/default_runtime.py and '
            'mmseg::_base_/datasets/ade20k.py have them: add them to its _base_.'
        )
    cfg.setdefault('tta_model', _default_tta_model(scope))
    if cfg.tta_model.type in ('SegTTAModel', 'mmseg.SegTTAModel'):
        cfg.tta_model.type = 'AccumulatingSegTTAModel'  # the same result, without the score maps of all scales at once
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for dataset in leaf_datasets(cfg, 'test_dataloader'):
        dataset.pipeline = cfg.get('tta_pipeline') or _flip_pipeline(dataset.pipeline, scope)


def _default_tta_model(scope: Scope) -> dict:
    if scope.name == 'mmpretrain':
        return dict(type='AverageClsScoreTTA')
    return dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))


def _flip_pipeline(pipeline: list[dict], scope: Scope) -> list[dict]:
    """The test pipeline with a flipped and an unflipped copy of the image in front of its packing step."""
    pack = deepcopy(pipeline[-1])
    if scope.name == 'mmdet':
        pack['meta_keys'] = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    return [*deepcopy(list(pipeline[:-1])), dict(type='TestTimeAug', transforms=[flips, [pack]])]


def drop_averaging(cfg: Config) -> None:
    """Tests the running average of the weights, which a checkpoint has as its own, without the hook that keeps it.

    mmpretrain's `EMAHook` would evaluate a second time, and draw and dump over the first, and looks in a model for
    test-time augmentation for names that it does not have. A hook that is told to evaluate the weights themselves
    (`evaluate_on_ema=False`) stays.
    """
    if cfg.get('custom_hooks'):
        cfg.custom_hooks = [
            hook for hook in cfg.custom_hooks if hook.get('type') != 'EMAHook' or hook.get('evaluate_on_ema') is False
        ]


def has_masks(model: dict) -> bool:
    """Whether a detector predicts masks, judged by a mask head or a panoptic head anywhere in its config."""
    return any(
        (key in ('mask_head', 'panoptic_head') and value is not None) or (isinstance(value, dict) and has_masks(value))
        for key, value in model.items()
    )


def check_out(scope: Scope, out: str) -> None:
    """Checks `--out`: a pickle for boxes, masks and classes; a folder of PNG files for segmentation.

    Raises:
        UserError: if the name does not fit.
    """
    if scope.name == 'mmseg' and out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {out}: label maps are written as PNG files; give the name of a folder for them.')
    if scope.name != 'mmseg' and not out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {out}: predictions are written as a pickle; the name must end with .pkl.')


def set_segmentation_out(cfg: Config, out: str) -> None:
    """Keeps the predicted label maps of a segmentor as PNG files in `out`."""
    metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list | tuple) else [cfg.test_evaluator]
    for metric in metrics:
        metric.update(output_dir=out, keep_results=True)


def add_dump(runner: Runner, scope: Scope, out: str) -> None:
    """Also writes the predictions of a detector or a classifier to the pickle file `out`."""
    if scope.name == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        dump = DumpDetResults(out_file_path=out)
    else:
        dump = DumpResults(out_file_path=out)
    runner.test_evaluator.metrics.append(dump)
